//! `CommandLine`: the arguments of one command, taken apart by the table of options.
//!
//! It says what was typed and judges nothing; `judgement` does. The order of arguments counts as it does for
//! the compiler: `-x` holds for the inputs after it, of several `-o` the last one wins.

use super::language::Language;
use super::names::Compiler;
use super::options::{self, OptionSpec, Role, Traits};

/// How far the compiler is to go. Ordered as both families have it: of several, the least wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// `-M`, `-MM`: print rules for make.
    Dependencies,
    /// `-E`: print the preprocessed source.
    Preprocess,
    /// `--precompile`: write a module.
    Precompile,
    /// `-fsyntax-only`: only say what is wrong.
    SyntaxOnly,
    /// `-S`: write assembler.
    Assemble,
    /// `-c`: write an object.
    Compile,
    /// None of these: make a program.
    Link,
}

impl Mode {
    /// Whether no stage behind the preprocessor and the parser is reached: a header is then a source like others.
    pub fn only_reads(self) -> bool {
        matches!(self, Self::Dependencies | Self::Preprocess | Self::SyntaxOnly)
    }
}

/// An input file that the compiler proper or the assembler is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As spelled.
    pub path: Vec<u8>,
    /// What the compiler takes it for.
    pub language: Language,
    /// The argument's number, from 0.
    pub argument: usize,
}

/// A path in an argument: one that may lie below the requester's own directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The argument's number, from 0.
    pub argument: usize,
    /// Where in it the path begins.
    pub offset: usize,
    /// What the path is for.
    pub purpose: Purpose,
}

/// What a path in an argument is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A file or directory that is read.
    Input,
    /// `-o`.
    Output,
    /// `-MF`.
    DependencyFile,
    /// `-MT`, `-MQ`.
    Target,
    /// The old half of a prefix map.
    Map {
        /// It is used for `__FILE__`.
        macros: bool,
        /// It is used for debug information.
        debug: bool,
    },
}

/// One command, taken apart.
#[derive(Debug, Clone)]
pub struct CommandLine {
    /// Whose options these are.
    pub compiler: Compiler,
    /// How far to go.
    pub mode: Mode,
    /// `-emit-llvm`.
    pub emits_llvm: bool,
    /// What is to be compiled.
    pub sources: Vec<Source>,
    /// What is for the linker: objects, libraries, files of unknown kind.
    pub has_linker_inputs: bool,
    /// The last `-o`.
    pub output: Option<Vec<u8>>,
    /// How many `-o` there are.
    pub output_count: usize,
    /// Rules for make are to be written beside the output (`-MD`, `-MMD`).
    pub writes_dependencies: bool,
    /// The last `-MF`.
    pub dependency_file: Option<Vec<u8>>,
    /// Names of implied outputs come from somewhere else than the source's name.
    pub has_other_names: bool,
    /// `-iquote`, in order.
    pub quote_dirs: Vec<Vec<u8>>,
    /// `-I`, in order.
    pub user_dirs: Vec<Vec<u8>>,
    /// `-isystem`, in order.
    pub system_dirs: Vec<Vec<u8>>,
    /// `-idirafter`, in order.
    pub after_dirs: Vec<Vec<u8>>,
    /// `-include` and `-imacros`, in order.
    pub forced_includes: Vec<Vec<u8>>,
    /// How many `-arch` there are.
    pub architecture_count: usize,
    /// `-march=native` and the like, or options we do not see: the processor is an input.
    pub asks_processor: bool,
    /// Time stamps of inputs can enter the result.
    pub uses_mtimes: bool,
    /// `-include-pch`, in order.
    pub precompiled_headers: Vec<Vec<u8>>,
    /// `-Xclang -emit-pch`.
    pub emits_precompiled: bool,
    /// Any environment variable may be read.
    pub reads_any_variable: bool,
    /// Something other than an output is named under `/dev` or `/proc`.
    pub names_device: bool,
    /// `-v`.
    pub is_verbose: bool,
    /// A question was asked (`--version`).
    pub is_query: bool,
    /// The last option lacks its value.
    pub is_incomplete: bool,
    /// There is an option that is not in the table.
    pub is_unrecognised: bool,
    /// The reason of the first option that is never cached.
    pub refusal: Option<&'static str>,
    /// The first option that a dependency file does not tell all about.
    pub undeclared: Option<&'static str>,
    /// The result holds what a search for bytes does not find: compressed, or only as digests.
    pub hides_places: bool,
    /// There are targets of rules for make that are in no place.
    pub hides_targets: bool,
    /// Paths in the arguments, in order.
    pub places: Vec<Place>,
}

impl CommandLine {
    /// Whether the result is the compiler's own memory of what it has read, a precompiled header or a module, and not
    /// code: clang notes the times of all that it read in it.
    pub fn makes_memory(&self) -> bool {
        let is_interface = |source: &Source| matches!(source.language, Language::Header | Language::Module);
        self.mode == Mode::Precompile
            || (!self.mode.only_reads() && self.sources.iter().any(is_interface))
            || self.emits_precompiled
    }

    /// Takes `arguments` apart (`argv[0]` not among them, response files replaced).
    pub fn parse(arguments: &[Vec<u8>], compiler: Compiler) -> Self {
        let mut parser = Parser { line: Self::empty(compiler), language: None };
        let mut rest = arguments.iter().map(Vec::as_slice).enumerate();
        while let Some((number, argument)) = rest.next() {
            parser.line.asks_processor |= names_native(argument);
            if argument.len() < 2 || argument[0] != b'-' {
                parser.line.places.push(Place { argument: number, offset: 0, purpose: Purpose::Input });
                parser.input(number, argument);
                continue;
            }
            let Some(found) = options::find(argument, compiler) else {
                parser.line.is_unrecognised = true;
                continue;
            };
            let next = if found.takes_next { rest.next() } else { None };
            if found.takes_next && next.is_none() {
                parser.line.is_incomplete = true;
            }
            parser.line.asks_processor |= next.is_some_and(|(_, value)| names_native(value));
            if let Some(purpose) = purpose(found.option) {
                let (argument, offset) = next.map_or((number, found.option.name.len()), |(n, _)| (n, 0));
                parser.line.places.push(Place { argument, offset, purpose });
            }
            parser.option(found.option, next.map(|(_, value)| value).or(found.joined).unwrap_or_default());
        }
        parser.line
    }

    fn empty(compiler: Compiler) -> Self {
        Self {
            compiler,
            mode: Mode::Link,
            emits_llvm: false,
            sources: Vec::new(),
            has_linker_inputs: false,
            output: None,
            output_count: 0,
            writes_dependencies: false,
            dependency_file: None,
            has_other_names: false,
            quote_dirs: Vec::new(),
            user_dirs: Vec::new(),
            system_dirs: Vec::new(),
            after_dirs: Vec::new(),
            forced_includes: Vec::new(),
            architecture_count: 0,
            asks_processor: false,
            uses_mtimes: false,
            precompiled_headers: Vec::new(),
            emits_precompiled: false,
            reads_any_variable: false,
            names_device: false,
            is_verbose: false,
            is_query: false,
            is_incomplete: false,
            is_unrecognised: false,
            refusal: None,
            undeclared: None,
            hides_places: false,
            hides_targets: false,
            places: Vec::new(),
        }
    }
}

/// What the path is for that this option's value is, if it is one.
fn purpose(option: &OptionSpec) -> Option<Purpose> {
    match option.role {
        Role::Output => Some(Purpose::Output),
        Role::DependencyFile => Some(Purpose::DependencyFile),
        Role::QuoteDir | Role::UserDir | Role::SystemDir | Role::AfterDir | Role::ForcedInclude => {
            Some(Purpose::Input)
        }
        _ => match option.name {
            "-MT" | "-MQ" => Some(Purpose::Target),
            "-ffile-prefix-map=" => Some(Purpose::Map { macros: true, debug: true }),
            "-fmacro-prefix-map=" => Some(Purpose::Map { macros: true, debug: false }),
            "-fdebug-prefix-map=" => Some(Purpose::Map { macros: false, debug: true }),
            "-fcoverage-prefix-map=" | "-fprofile-prefix-map=" => {
                Some(Purpose::Map { macros: false, debug: false })
            }
            _ => None,
        },
    }
}

/// Options after which a result holds paths in a form that a search for their bytes does not find.
const HIDING: &[&str] = &["-flto", "-gz", "-fcoverage-", "-fprofile", "-fembed-bitcode", "-fdebug-types"];

/// A command line being taken apart.
struct Parser {
    line: CommandLine,
    /// What the last `-x` said, unless that was `none`.
    language: Option<Language>,
}

impl Parser {
    fn input(&mut self, argument: usize, path: &[u8]) {
        self.line.names_device |= is_device(path);
        let language = self.language.unwrap_or_else(|| Language::of_path(path, self.line.compiler));
        // Standard input has no extension; without `-x` the compiler says so itself.
        if language == Language::LinkerInput && path != b"-" {
            self.line.has_linker_inputs = true;
            self.undeclared("a file for the linker");
        } else {
            self.line.sources.push(Source { path: path.to_vec(), language, argument });
        }
    }

    fn option(&mut self, option: &'static OptionSpec, value: &[u8]) {
        let line = &mut self.line;
        line.uses_mtimes |= option.traits.has(Traits::MTIMES);
        line.reads_any_variable |= option.traits.has(Traits::ANY_VARIABLE.and(Traits::MORE_OPTIONS));
        line.asks_processor |= option.traits.has(Traits::MORE_OPTIONS);
        // `-g` takes any tail: `-gz`.
        line.hides_places |= HIDING.iter().any(|hiding| option.name.starts_with(hiding))
            || (option.name == "-g" && value.starts_with(b"z"));
        // Values of harmless options are no files: `-DNAME=/dev/x`, `-ffile-prefix-map=/proc/self/cwd=`.
        let is_output = matches!(option.role, Role::Output | Role::DependencyFile);
        let is_harmless = option.role == Role::Plain && option.is_declared();
        if !is_output && !is_harmless {
            line.names_device |= value.split(|b| matches!(b, b',' | b'=')).any(is_device);
        }
        if !option.is_declared() {
            self.undeclared(if option.name == "-f" { "unknown option" } else { option.name });
        }
        self.role(option, value);
    }

    fn role(&mut self, option: &'static OptionSpec, value: &[u8]) {
        let line = &mut self.line;
        match option.role {
            Role::Plain => {}
            Role::Compile => line.mode = line.mode.min(Mode::Compile),
            Role::Assemble => line.mode = line.mode.min(Mode::Assemble),
            Role::Preprocess => line.mode = line.mode.min(Mode::Preprocess),
            Role::Dependencies => line.mode = line.mode.min(Mode::Dependencies),
            Role::SyntaxOnly => line.mode = line.mode.min(Mode::SyntaxOnly),
            Role::Precompile => line.mode = line.mode.min(Mode::Precompile),
            Role::EmitLlvm => line.emits_llvm = true,
            Role::Output => {
                line.output = Some(value.to_vec());
                line.output_count += 1;
            }
            Role::WriteDependencies => line.writes_dependencies = true,
            Role::DependencyFile => line.dependency_file = Some(value.to_vec()),
            Role::Language => self.language = Language::named(value),
            Role::QuoteDir => line.quote_dirs.push(value.to_vec()),
            Role::UserDir => self.search_dir(value, |line| &mut line.user_dirs),
            Role::SystemDir => self.search_dir(value, |line| &mut line.system_dirs),
            Role::AfterDir => self.search_dir(value, |line| &mut line.after_dirs),
            Role::ForcedInclude => line.forced_includes.push(value.to_vec()),
            Role::PrecompiledHeader => line.precompiled_headers.push(value.to_vec()),
            Role::Target => line.has_other_names |= is_windows(value),
            Role::Architecture => line.architecture_count += 1,
            Role::DumpName => line.has_other_names = true,
            Role::PreprocessorList => self.preprocessor_list(value),
            Role::AssemblerList => {
                if value.split(|&b| b == b',').any(|word| word != b"--noexecstack") {
                    self.undeclared("-Wa,");
                }
            }
            Role::InnerArgument => self.inner_argument(value),
            Role::Verbose => line.is_verbose = true,
            Role::Query => line.is_query = true,
            Role::PassThrough => {
                line.refusal.get_or_insert(option.note);
            }
        }
    }

    /// A directory that is searched for headers. One that is relative to the system root needs that to be known.
    fn search_dir(&mut self, dir: &[u8], dirs: impl Fn(&mut CommandLine) -> &mut Vec<Vec<u8>>) {
        if dir.starts_with(b"=") || dir.starts_with(b"$SYSROOT") {
            self.undeclared("a search directory within the system root");
        }
        dirs(&mut self.line).push(dir.to_vec());
    }

    /// `-Wp,a,b`: what the preprocessor is given. There, `-MD` and `-MMD` take the file as their value.
    fn preprocessor_list(&mut self, list: &[u8]) {
        let is_pair = list.iter().filter(|&&b| b == b',').count() == 1;
        let mut words = list.split(|&b| b == b',');
        while let Some(word) = words.next() {
            match word {
                // clang knows only this very form; within a longer list it takes the file's name for something else.
                b"-MD" | b"-MMD" if !is_pair && self.line.compiler == Compiler::Clang => {
                    self.line.is_unrecognised = true
                }
                b"-MD" | b"-MMD" => {
                    self.line.writes_dependencies = true;
                    self.line.dependency_file = words.next().map(<[u8]>::to_vec);
                    self.line.is_incomplete |= self.line.dependency_file.is_none();
                }
                b"-MF" => self.line.dependency_file = words.next().map(<[u8]>::to_vec),
                b"-MT" | b"-MQ" => {
                    self.line.hides_targets = true;
                    words.next();
                }
                b"-MP" => {}
                // A macro's value may hold commas; its further words then are no options.
                _ if word.len() > 2 && (word.starts_with(b"-D") || word.starts_with(b"-U")) => {}
                _ => self.undeclared("-Wp,"),
            }
        }
    }

    /// `-Xclang word`: only what changes the kind of result is told apart.
    fn inner_argument(&mut self, word: &[u8]) {
        let line = &mut self.line;
        let begins = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| word.starts_with(prefix));
        if begins(&[b"-fmodule", b"-fimplicit-module", b"-fprebuilt-", b"-emit-module", b"-emit-header"]) {
            line.refusal.get_or_insert("modules");
        }
        line.reads_any_variable |=
            begins(&[b"-load", b"-plugin", b"-add-plugin", b"-fpass-plugin", b"-fplugin"]);
        line.uses_mtimes |= word.windows(3).any(|w| w == b"pch");
        line.emits_precompiled |= word == b"-emit-pch";
    }

    fn undeclared(&mut self, what: &'static str) {
        self.line.undeclared.get_or_insert(what);
    }
}

/// Whether a path names something whose content is no file's. `/dev/null` is always empty and `/dev/shm` holds
/// ordinary files.
pub fn is_device(path: &[u8]) -> bool {
    path != b"/dev/null"
        && !path.starts_with(b"/dev/shm/")
        && (path.starts_with(b"/dev/") || path.starts_with(b"/proc/"))
}

/// Whether an argument asks for this machine's processor, in whatever option: `-march=native`,
/// `-Xarch_x86_64 -mcpu=native+nofp`.
fn names_native(argument: &[u8]) -> bool {
    argument.windows(7).any(|w| w == b"=native")
}

/// Whether a target's objects are called `.obj`, so that implied names are not the usual ones.
fn is_windows(target: &[u8]) -> bool {
    target.windows(7).any(|w| w == b"windows") || target.windows(4).any(|w| w == b"msvc")
}
