//! What is known of single options, as one sorted table, and how to find an argument in it.
//!
//! An entry says how the option takes its value ([`Shape`]), what the value is for ([`Role`]), and, in
//! orthogonal bits ([`Traits`]), what else the option brings along. An option that the table lacks is never
//! guessed at: whether it swallows the next argument is unknown, so the command passes through.

mod table;

use super::names::Compiler;
pub use table::OPTIONS;

/// How an option takes its value. More than one bit may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape(u8);

impl Shape {
    /// Stands alone: `-c`.
    pub const ALONE: Self = Self(1);
    /// The value is the next argument: `-o a.o`.
    pub const SEPARATE: Self = Self(2);
    /// The value follows in the same argument, and may be empty: `-O2`, `-O`.
    pub const JOINED: Self = Self(4);
    /// Part of the value follows in the same argument, the rest is the next: `-Xarch_x86_64 -O2`.
    pub const JOINED_AND_SEPARATE: Self = Self(8);
    /// In either way: `-I dir`, `-Idir`. Alone it is incomplete.
    pub const EITHER: Self = Self(2 | 4);

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What an option does to a command's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing that the plan must know.
    Plain,
    /// `-c`: stop after assembling.
    Compile,
    /// `-S`: stop after compiling.
    Assemble,
    /// `-E`: stop after preprocessing.
    Preprocess,
    /// `-M`, `-MM`: print the rules for make instead.
    Dependencies,
    /// `-fsyntax-only`: write nothing.
    SyntaxOnly,
    /// `--precompile`: write a module and stop.
    Precompile,
    /// `-emit-llvm`: LLVM's code instead of the machine's.
    EmitLlvm,
    /// `-o`: where to.
    Output,
    /// `-MD`, `-MMD`: write the rules for make beside.
    WriteDependencies,
    /// `-MF`: to this file.
    DependencyFile,
    /// `-x`: take what follows for this language.
    Language,
    /// `-iquote`.
    QuoteDir,
    /// `-I`.
    UserDir,
    /// `-isystem`.
    SystemDir,
    /// `-idirafter`.
    AfterDir,
    /// `-include`, `-imacros`: read this header first.
    ForcedInclude,
    /// `-include-pch`: take this precompiled header.
    PrecompiledHeader,
    /// `-target`: for which machine and system.
    Target,
    /// `-arch`: several mean several compiles.
    Architecture,
    /// `-dumpbase` and kin: the names of side outputs come from elsewhere.
    DumpName,
    /// `-Wp,…`: options for the preprocessor.
    PreprocessorList,
    /// `-Wa,…`: options for the assembler.
    AssemblerList,
    /// `-Xclang`: one argument for clang's inner compiler.
    InnerArgument,
    /// `-v`: tell what is run. With no input, only a question.
    Verbose,
    /// A question that is answered without compiling.
    Query,
    /// Never cached; the note is the pass-through reason.
    PassThrough,
}

/// What else an option brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits(u8);

impl Traits {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Known to gcc alone.
    pub const GCC: Self = Self(1);
    /// Known to clang alone.
    pub const CLANG: Self = Self(2);
    /// The value names a file that is read. Dependency files do not list it (they list headers alone).
    pub const INPUT: Self = Self(4);
    /// The compiler writes a file that neither `-o` nor `-MF` names.
    pub const SIDE_OUTPUT: Self = Self(8);
    /// Time stamps of inputs can enter the result.
    pub const MTIMES: Self = Self(16);
    /// Code or specs of the user's that may read any variable: the whole environment is an input.
    pub const ANY_VARIABLE: Self = Self(32);
    /// Something else that a dependency file does not tell.
    pub const UNDECLARED: Self = Self(64);
    /// The value names a file with options in it, `-march=native` possibly among them.
    pub const MORE_OPTIONS: Self = Self(128);

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is among these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// The option, or what it begins with if its value is joined.
    pub name: &'static str,
    /// How it takes its value.
    pub shape: Shape,
    /// What it does.
    pub role: Role,
    /// What else it brings along.
    pub traits: Traits,
    /// For `Role::PassThrough` the reason.
    pub note: &'static str,
}

impl OptionSpec {
    /// Whether a dependency file tells all about a compile with this option.
    pub fn is_declared(&self) -> bool {
        !self
            .traits
            .has(Traits::INPUT.and(Traits::SIDE_OUTPUT).and(Traits::UNDECLARED).and(Traits::ANY_VARIABLE))
    }

    fn is_known_to(&self, compiler: Compiler) -> bool {
        !self.traits.has(match compiler {
            Compiler::Gcc => Traits::CLANG,
            Compiler::Clang => Traits::GCC,
        })
    }

    fn fits(&self, argument: &[u8]) -> bool {
        if argument.len() == self.name.len() {
            self.shape.has(Shape(1 | 2 | 4))
        } else {
            self.shape.has(Shape(4 | 8))
        }
    }
}

/// An option as it stands in a command.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its entry.
    pub option: &'static OptionSpec,
    /// What follows the option's name in the same argument, if anything does.
    pub joined: Option<&'a [u8]>,
    /// Whether the next argument belongs to it.
    pub takes_next: bool,
}

/// Finds the entry with the longest name that `argument` begins with and whose shape it has.
pub fn find(argument: &[u8], compiler: Compiler) -> Option<Found<'_>> {
    let mut prefix = argument;
    let mut end = OPTIONS.partition_point(|o| o.name.as_bytes() <= prefix);
    while end > 0 {
        let option = &OPTIONS[end - 1];
        let name = option.name.as_bytes();
        let common = name.iter().zip(prefix).take_while(|(a, b)| a == b).count();
        if common == name.len() {
            if option.is_known_to(compiler) && option.fits(argument) {
                return Some(found(option, argument));
            }
            end -= 1;
        } else if common == 0 {
            return None;
        } else {
            // Nothing between here and what the two have in common can begin the argument.
            prefix = &argument[..common];
            end = OPTIONS[..end - 1].partition_point(|o| o.name.as_bytes() <= prefix);
        }
    }
    None
}

fn found<'a>(option: &'static OptionSpec, argument: &'a [u8]) -> Found<'a> {
    let rest = &argument[option.name.len()..];
    if rest.is_empty() {
        return Found { option, joined: None, takes_next: option.shape.has(Shape::SEPARATE) };
    }
    Found { option, joined: Some(rest), takes_next: option.shape.has(Shape::JOINED_AND_SEPARATE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_repeat_only_between_compilers() {
        for pair in OPTIONS.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            assert!(a.name <= b.name, "{} after {}", b.name, a.name);
            let apart = a.traits.has(Traits::GCC) && b.traits.has(Traits::CLANG);
            assert!(a.name < b.name || apart, "{} twice", a.name);
        }
    }

    #[test]
    fn reasons_belong_to_options_that_pass_through() {
        for option in OPTIONS {
            assert_eq!(option.role == Role::PassThrough, !option.note.is_empty(), "{}", option.name);
            assert!(option.name.starts_with('-') && option.name.len() > 1, "{}", option.name);
        }
    }

    #[test]
    fn every_name_is_found_and_the_longest_one_that_fits_wins() {
        for option in OPTIONS {
            for compiler in [Compiler::Gcc, Compiler::Clang] {
                if option.is_known_to(compiler) && option.fits(option.name.as_bytes()) {
                    let got = find(option.name.as_bytes(), compiler).expect("is in the table");
                    assert_eq!(got.option.name, option.name);
                }
            }
        }
        let name = |argument: &str, compiler| find(argument.as_bytes(), compiler).map(|f| f.option.name);
        for (argument, gcc, clang) in [
            ("-includefoo.h", Some("-include"), Some("-include")),
            ("-include-pch", Some("-include"), Some("-include-pch")),
            ("-Ifoo", Some("-I"), Some("-I")),
            ("-fmodulo-x", Some("-f"), Some("-f")),
            ("-fmodules", Some("-fmodules"), Some("-fmodule")),
            ("-fmodules-ts", Some("-fmodules-ts"), Some("-fmodules-ts")),
            ("-fmodule-file=m.pcm", Some("-fmodule"), Some("-fmodule-file=")),
            ("-cfoo", None, None),
            ("-x", Some("-x"), Some("-x")),
            ("-Zfoo", None, None),
            ("a.c", None, None),
            ("-", None, None),
        ] {
            assert_eq!(name(argument, Compiler::Gcc), gcc, "{argument}");
            assert_eq!(name(argument, Compiler::Clang), clang, "{argument}");
        }
    }

    /// What `find` means, without the search: of all entries that fit, the one with the longest name.
    fn find_slowly(argument: &[u8], compiler: Compiler) -> Option<&'static str> {
        let fits = |o: &&OptionSpec| {
            argument.starts_with(o.name.as_bytes()) && o.is_known_to(compiler) && o.fits(argument)
        };
        OPTIONS.iter().filter(fits).max_by_key(|o| o.name.len()).map(|o| o.name)
    }

    #[test]
    fn the_search_finds_what_looking_at_every_entry_finds() {
        for option in OPTIONS {
            let name = option.name.as_bytes();
            for end in 1..=name.len() {
                for tail in [&b""[..], b"x", b"=", b"-", b"\xff", b"no-such"] {
                    let argument = [&name[..end], tail].concat();
                    for compiler in [Compiler::Gcc, Compiler::Clang] {
                        let quick = find(&argument, compiler).map(|found| found.option.name);
                        assert_eq!(quick, find_slowly(&argument, compiler), "{}", argument.escape_ascii());
                    }
                }
            }
        }
    }
}
