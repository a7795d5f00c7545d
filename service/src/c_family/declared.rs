//! What a command line says about its inputs, for the declared observer: search directories, and every reason
//! why a dependency file would not tell the whole truth.

use std::borrow::Cow;

use zccache_actors::observation::Spelled;
use zccache_actors::plan::DeclaredInputs;
use zccache_actors::spelling;
use zccache_proto::ByteStrings;

use super::command_line::{CommandLine, Mode, Source};
use super::environment;
use super::language::Language;
use super::response_files::Expanded;

/// What is declared about the compile of `source`; `dependency_file` is the one asked for.
pub fn declared(
    line: &CommandLine,
    source: &Source,
    dependency_file: Option<&[u8]>,
    env: &ByteStrings,
    expanded: &Expanded,
) -> DeclaredInputs {
    let file = |(path, signature): &(Vec<u8>, _)| (Spelled(path.clone()), *signature);
    DeclaredInputs {
        arguments: expanded.arguments.clone(),
        argument_files: expanded.files.iter().map(file).collect(),
        source: Some(Spelled(source.path.clone())),
        dependency_file: dependency_file.map(|path| Spelled(path.to_vec())),
        quote_dirs: line.quote_dirs.iter().cloned().map(Spelled).collect(),
        search_dirs: search_dirs(line, env),
        forced_includes: line.forced_includes.iter().cloned().map(Spelled).collect(),
        unsupported: unsupported(line, source, env).map(Cow::Borrowed),
    }
}

/// What is declared about a command of which nothing is.
pub fn undeclared(why: &'static str) -> DeclaredInputs {
    DeclaredInputs { unsupported: Some(Cow::Borrowed(why)), ..DeclaredInputs::default() }
}

/// The search order of the GCC manual ("Options for Directory Search"): `-I`, `CPATH`, `-isystem`, the language's
/// variables, (the compiler's own,) `-idirafter`. The variables of all languages are taken: one directory too
/// many is only one more path that must stay absent.
fn search_dirs(line: &CommandLine, env: &ByteStrings) -> Vec<Spelled> {
    const OF_LANGUAGES: [&[u8]; 4] =
        [b"C_INCLUDE_PATH", b"CPLUS_INCLUDE_PATH", b"OBJC_INCLUDE_PATH", b"OBJCPLUS_INCLUDE_PATH"];
    let mut dirs: Vec<Vec<u8>> = line.user_dirs.clone();
    dirs.extend(path_list(env, b"CPATH"));
    dirs.extend(line.system_dirs.iter().cloned());
    dirs.extend(OF_LANGUAGES.iter().flat_map(|name| path_list(env, name)));
    dirs.extend(line.after_dirs.iter().cloned());
    dirs.into_iter().map(Spelled).collect()
}

/// The directories in a variable, an empty one being the working directory.
fn path_list(env: &ByteStrings, name: &[u8]) -> Vec<Vec<u8>> {
    match env.value_of(name) {
        None | Some(b"") => Vec::new(),
        Some(list) => spelling::list(list)
            .into_iter()
            .map(|dir| if dir.is_empty() { b".".to_vec() } else { dir })
            .collect(),
    }
}

fn unsupported(line: &CommandLine, source: &Source, env: &ByteStrings) -> Option<&'static str> {
    let by_kind = match (source.language, line.mode) {
        _ if source.path == b"-" => Some("source on standard input"),
        (_, Mode::Preprocess | Mode::Dependencies) => Some("preprocessor output"),
        (Language::Source, _) => None,
        (Language::Preprocessed, _) => Some("preprocessed source"),
        (Language::Assembler | Language::AssemblerSource, _) => Some("assembler source"),
        _ => Some("not a C or C++ source"),
    };
    by_kind
        .or(line.undeclared)
        .or(environment::undeclared(env))
        .or((line.output_count > 1).then_some("several -o"))
        .or(line.uses_mtimes.then_some("precompiled header"))
}
