//! What is let pass, and what is not. In the texts, `⏎` stands for a newline.

use super::super::source_scan::scan;
use super::*;

/// What is said of texts that are compiled together.
fn verdict(texts: &[&str]) -> Result<(), String> {
    let mut defined = HashSet::new();
    let mut scanned = |text: &&str| {
        let text = text.replace('⏎', "\n").into_bytes();
        let scan = Arc::new(scan(&text));
        if let Some(hazard) = scan.hazard {
            return Err(hazard.to_owned());
        }
        defined.extend(scan.defined.iter().copied());
        Ok(Text::new(Source::CommandLine(text), scan))
    };
    let texts: Vec<_> = texts.iter().map(&mut scanned).collect::<Result<_, _>>()?;
    check(&texts, &defined)
}

/// What mingw's headers define.
const MINGW: &str = r##"
#define __STRINGIFY(x) #x
#define __MINGW64_STRINGIFY(x) \
  __STRINGIFY(x)
#if X
#  define __MINGW_USYMBOL(sym) sym
#else
#  define __MINGW_USYMBOL(sym) _##sym
#endif
#define __MINGW_ASM_CALL(func) __asm__(__MINGW64_STRINGIFY(__MINGW_USYMBOL(func)))
#define __MINGW_ASM_CRT_CALL(func) __asm__(__STRINGIFY(func))
#define __mingw_bos_declare void __chk(void) __MINGW_ASM_CALL(__chk_fail) __attribute__((__noreturn__))
#define __try1(pHandler) \
    __asm__ __volatile__ ("\t.l_startw:\n" \
    "\t.seh_handler __C_specific_handler, @except\n" \
    "\t.seh_handlerdata\n" \
    "\t.long 1\n" \
    "\t.rva .l_startw, .l_endw, " __MINGW64_STRINGIFY(__MINGW_USYMBOL(pHandler)) " ,.l_endw\n" \
    "\t.text" \
    );
"##;

/// And glibc's.
const GLIBC: &str = r##"
#define __STRING(x)	#x
# define __REDIRECT(name, proto, alias) name proto __asm__ (__ASMNAME (#alias))
# define __REDIRECT_NTH(name, proto, alias) name proto __THROW __asm__ (__ASMNAME (#alias))
# define __ASMNAME(cname)  __ASMNAME2 (__USER_LABEL_PREFIX__, cname)
# define __ASMNAME2(prefix, cname) __STRING (prefix) cname
# define __LDBL_REDIR1(name, proto, alias) __REDIRECT (name, proto, alias)
# define __LDBL_REDIR_DECL(name) extern __typeof (name) name __asm (__ASMNAME ("__" #name "ieee128"));
# define __REDIRECT_FORTIFY __REDIRECT
#if defined __REDIRECT && !defined(__REDIRECT_NTH)
#endif
"##;

/// What a user of theirs may have.
const PASTE: &str = "#define P(a, b) a##b⏎";

#[track_caller]
fn fine(texts: &[&str]) {
    assert_eq!(verdict(texts), Ok(()), "{texts:?}");
}

#[track_caller]
fn refused(texts: &[&str]) {
    assert!(verdict(texts).is_err(), "{texts:?}");
}

#[test]
fn labels_of_names_alone_are_let_pass() {
    for text in [
        "int f(const char *, ...) __MINGW_ASM_CALL(sprintf);⏎int g(void)⏎__MINGW_ASM_CRT_CALL ( _open ) ;",
        "#define sprintf my_sprintf⏎#define my_sprintf(x) other(x)⏎int f() __MINGW_ASM_CALL(sprintf);",
        "#define sprintf s_instead;⏎int f() __MINGW_ASM_CALL(sprintf);",
        "#define gets(...) (pthread_testcancel(), gets(__VA_ARGS__))⏎int f() __MINGW_ASM_CALL(gets);",
        r#"int f() __MINGW_ASM_CALL(sprintf);⏎char *s = "."; char *t = "\x2e\\"; a.b(c); x.inc(bin);"#,
        "#ifdef __MINGW_ASM_CALL⏎#endif⏎#undef __MINGW_ASM_CALL⏎",
        "void g(void) { __try1(handler) }",
    ] {
        fine(&[MINGW, PASTE, text]);
    }
    for text in [
        "extern int __REDIRECT (fscanf, (FILE *__s, const char *__f, ...), __isoc99_fscanf);",
        "extern int __REDIRECT_NTH (sscanf, (char s[restrict 1.5]),⏎ __isoc99_sscanf);",
        "extern int __LDBL_REDIR1 (fscanf, (FILE *__s, ...), __isoc99_fscanf);⏎__LDBL_REDIR_DECL (f)",
        "extern int __REDIRECT_FORTIFY (fscanf, (FILE *__s), __isoc99_fscanf);",
    ] {
        fine(&[GLIBC, PASTE, text]);
    }
}

#[test]
fn macros_of_harmless_strings_are_let_pass() {
    fine(&[r#"#define LOCK "lock; ""#, r#"void f(void) { asm volatile(LOCK "incl %0" : "+m"(x)); }"#]);
    fine(&[r#"#define V volatile⏎asm V ("nop");"#]);
    fine(&[r#"#define REP(n) ".rept " #n "\n"⏎asm(REP(3) "nop\n.endr");"#]);
    fine(&[r#"#define NAME(x) asm("_" #x)⏎int f(void) NAME(g);"#]);
}

#[test]
fn what_a_label_is_called_with_may_hold_no_directive() {
    for text in [
        // With a dot, or a string that ends within a directive.
        r#"int f(void) __MINGW_ASM_CALL(a; .P(inc,bin) "x");"#,
        r#"int f(void) __MINGW_ASM_CRT_CALL(.P(inc,bin) "x");"#,
        r#"int f(void) __MINGW_ASM_CALL(.\⏎P(inc,bin) "x");"#,
        r#"int f(void) __MINGW_ASM_CALL⏎(.P(inc,bin) "x");"#,
        r#"int f(void) __MINGW_ASM_CALL(x "\n.");"#,
        r#"int f(void) __MINGW_ASM_CALL(x "\x2e");"#,
        r#"int f(void) __MINGW_ASM_CALL(R"(.)");"#,
        r#"void g(void) { __try1(.P(inc,bin)) }"#,
        r#"_Pragma("x") int f(void) __MINGW_ASM_CALL(_Pragma("x.") .P(inc,bin));"#,
        // With a macro that is it, or becomes it.
        r#"#define sprintf .P(inc,bin) "x"⏎int f(void) __MINGW_ASM_CALL(sprintf);"#,
        r#"%:define sprintf DOT P(inc,bin)⏎%:define DOT .⏎int f(void) __MINGW_ASM_CALL(sprintf);"#,
        r#"#define _sprintf .P(inc,bin)⏎int f(void) __MINGW_ASM_CALL(sprintf);"#,
        r#"#define __sprintf .P(inc,bin)⏎int f(void) __MINGW_ASM_CALL(__MINGW_USYMBOL(sprintf));"#,
        r#"#define _ .⏎int f(void) __MINGW_ASM_CALL(sprintf);"#,
        r#"int f(void) __MINGW_ASM_CALL(__FILE__);"#,
        r#"int f(void) __MINGW_ASM_CALL(P(__FI, LE__));"#,
        // By a macro that passes on what it gets.
        r#"#define MINE(x) __MINGW_ASM_CALL(x)⏎int f(void) MINE(.P(inc,bin) "x");"#,
        r#"#define A(x) int f(void) __MINGW_ASM_CALL(x)⏎#define B(y) A(y)⏎B(.P(inc,bin));"#,
        r#"#define MINE(...) int f(void) __MINGW_ASM_CALL(__VA_ARGS__)⏎MINE(.P(inc,bin));"#,
        // Under another name.
        r#"#define MINE __MINGW_ASM_CALL⏎int f(void) MINE(.P(inc,bin) "x");"#,
        r#"#define MINE() __MINGW_ASM_CALL⏎int f(void) MINE()(.P(inc,bin) "x");"#,
        r#"int f(void) P(__MINGW_ASM_, CALL)(.P(inc,bin) "x");"#,
        r#"int f(void) P(P(__MINGW_, ASM_), CALL)(.P(inc,bin) "x");"#,
        r#"#define O (⏎#define E(x) x⏎int f(void) E(__MINGW_ASM_CALL O .P(inc,bin) "x"));"#,
        // Its end is elsewhere.
        r#"#define C )⏎#define O (⏎int f(void) __MINGW_ASM_CALL(O x) ".inc\x62in" C);"#,
        // With the helpers defined anew.
        r#"#undef __STRINGIFY⏎#define __STRINGIFY(x) .P(inc,bin)⏎"#,
        r#"#undef __STRINGIFY⏎#define __STRINGIFY(x) "\x2e" "inc" "bin"⏎"#,
        r#"#undef __STRINGIFY⏎#define __STRINGIFY(x) DOT "inc" "bin"⏎#define DOT "."⏎"#,
        r#"#pragma push_macro("__STRINGIFY")⏎#define __STRINGIFY(x) DOT "inc"⏎#define DOT "."⏎"#,
        // Where comments or strings may hide lines.
        r#"char *s = "/*";⏎int f(void) __MINGW_ASM_CALL(x);"#,
        r#"char *s = R"(⏎#)"; int f(void) __MINGW_ASM_CALL(.P(inc,bin));"#,
    ] {
        refused(&[MINGW, PASTE, text]);
    }
    for text in [
        "int __REDIRECT (f, (void), a; .P(inc,bin));",
        "#define A a; .P(inc,bin)⏎int __REDIRECT (f, (void), A);",
        "#define A a, b, .P(inc,bin)) (⏎int __LDBL_REDIR1 (A, f, g);",
        "#define A(x) __REDIRECT(x)⏎A(f COMMA (void) COMMA .P(inc,bin))",
        "int __REDIRECT_FORTIFY (f, (void), .P(inc,bin));",
        "__LDBL_REDIR_DECL (.P(inc,bin))",
    ] {
        refused(&[GLIBC, PASTE, text]);
    }
}

#[test]
fn macros_within_assembler_are_looked_at_wherever_they_are_defined() {
    for [first, second] in [
        [r#"#define D "."⏎#define I "inc"⏎"#, r#"asm(D I "bin \"x\"");"#],
        [r#"#define D "\56"⏎"#, r#"asm(D "inc" "bin \"x\"");"#],
        ["#define I(x) #x⏎", r#"asm("\n." I(inc) "bin");"#],
        [r#"#define I(x) "text " x⏎"#, r#"asm(I(".") "x");"#],
        ["#define O (⏎", r#"asm O "nop");"#],
        ["#define M macro⏎", r#"asm("." M);"#],
        ["", r#"#define A(x) asm x⏎A(("\x2einc" "\x62in"))"#],
        ["", r#"#define A(x) asm(x)⏎A("\x2einc\x62in")"#],
        ["", r#"#define A(x...) asm(x)⏎A("nop")"#],
        ["", r#"#define A(x) asm("x" ⏎A(1)"#],
        ["", r#"#define A(x, y) asm(#x #y)⏎#define B(z) A(z, nop)⏎B(a.b)"#],
        ["", r#"#define A(x) R"(⏎)" asm(#x)⏎A(x)"#],
        ["", r#"#define A(x) 'ab' /* x */ asm(#x)⏎A(x)"#],
        [PASTE, r#"__asm .P(inc,bin) "x""#],
        [PASTE, r#"asm(P(DA, TA));⏎#define DATA ".""#],
        // Two of a name: neither may do harm, whichever holds.
        [r#"#define L "lock; "⏎#undef L⏎#define L "."⏎"#, r#"asm(L "incl %0");"#],
    ] {
        refused(&[first, second]);
    }
}

#[test]
fn the_name_of_a_macro_may_be_cut_into_so_many_pieces() {
    let evil = "(.P(inc,bin));";
    refused(&[MINGW, PASTE, &format!("int f(void) P(P(__MINGW_, ASM_), CALL){evil}")]);
    fine(&[MINGW, PASTE, &format!("int f(void) P(P(__MINGW_, ASM), P(_, CALL)){evil}")]);
}

#[test]
fn a_built_in_string_may_be_cut_into_so_many_pieces() {
    refused(&[MINGW, PASTE, "int f(void) __MINGW_ASM_CALL(P(__FI, LE__));"]);
    fine(&[MINGW, PASTE, "int f(void) __MINGW_ASM_CALL(P(__, P(FILE, __)));"]);
}
