//! A random compile command, and what becomes of its output between builds.

use std::path::Path;

use crate::chance::Chance;
use crate::project::SOURCES;

/// Flags that say where headers are looked for.
const SEARCH: [&str; 10] = [
    "-Iinc/a",
    "-Iinc/b",
    "-Iinc/c",
    "-I inc/link",
    "-iquote quote",
    "-isystem sys",
    "-idirafter after",
    "-I.",
    "-Inot/there",
    "-I src/../inc/b",
];

/// Flags of any other kind.
const OTHERS: [&str; 26] = [
    "-O1",
    "-g",
    "-g0",
    "-Wall",
    "-Wextra",
    "-w",
    "-DX=1",
    "-DX=2",
    "-UX",
    "-fPIC",
    "-MD",
    "-MMD",
    "-MD -MF out/named.d",
    "-MMD -MP",
    "-MD -MT target",
    "-include h4.h",
    "-include src/h3.h",
    "-ffile-prefix-map=src=there",
    "-fno-common",
    "-save-temps=obj",
    "-fstack-protector",
    "-H",
    "-ferror-limit=3",
    "-fmax-errors=2",
    "-Werror",
    "-fdebug-prefix-map=inc=hidden",
];

/// The words of a compile; outputs go to `out/`.
pub fn random(chance: &mut Chance) -> Vec<String> {
    let source = chance.of(&SOURCES);
    let tool = match (source.ends_with("cc"), chance.percent(70)) {
        (false, true) => "gcc",
        (true, true) => "g++",
        (false, false) => "clang",
        (true, false) => "clang++",
    };
    let mut line = tool.to_owned();
    let mut flag = |flag: &str| {
        line.push(' ');
        line.push_str(flag);
    };
    for _ in 0..chance.below(5) {
        flag(chance.of(&SEARCH));
    }
    for _ in 0..chance.below(4) {
        flag(chance.of(&OTHERS));
    }
    let stem = source.trim_start_matches("src/").replace('.', "_");
    match chance.below(14) {
        0 => flag(&format!("-S {source} -o out/{stem}.s")),
        1 => flag(&format!("-fsyntax-only {source}")),
        2 => flag(&format!("-E {source} -o out/{stem}.i")),
        3 => flag(&format!("-c {source} -oout/{stem}.o")),
        4 => flag(&format!("-c -o out/{stem}.o ./{source}")),
        5 => flag(&format!("-c {source}")),
        6 => flag(&format!("-c {source} {}", chance.of(&SOURCES))),
        _ => flag(&format!("-c {source} -o out/{stem}.o")),
    }
    line.split(' ').map(str::to_owned).collect()
}

/// What somebody does to the outputs between two builds.
#[derive(Clone, Copy, Debug)]
pub enum Mischief {
    Delete,
    Truncate,
    Scribble,
    ReadOnly,
    Executable,
    HardLink,
    Symlink,
    Dangling,
    Directory,
    NoDirectory,
}

impl Mischief {
    const ALL: [Self; 10] = [
        Self::Delete,
        Self::Truncate,
        Self::Scribble,
        Self::ReadOnly,
        Self::Executable,
        Self::HardLink,
        Self::Symlink,
        Self::Dangling,
        Self::Directory,
        Self::NoDirectory,
    ];

    /// Mostly what is usual.
    pub fn random(chance: &mut Chance) -> Self {
        if chance.percent(60) { Self::Delete } else { Self::ALL[chance.below(Self::ALL.len())] }
    }

    /// Does it to `path`, whatever is there.
    pub fn commit(self, path: &Path) {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = path.parent().expect("an output is in a directory");
        if matches!(self, Self::NoDirectory) {
            let _ = std::fs::remove_dir_all(directory);
            return;
        }
        std::fs::create_dir_all(directory).expect("a directory can be made");
        let aside = directory.join("aside");
        let mode = |mode: u32| {
            if path.is_file() {
                std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode can be set");
            }
        };
        match self {
            Self::Truncate => _ = std::fs::write(path, ""),
            Self::Scribble if path.is_file() => {
                let length = path.metadata().map_or(0, |m| m.len());
                if let Ok(file) = std::fs::File::options().write(true).open(path) {
                    let _ = std::os::unix::fs::FileExt::write_all_at(&file, b"scribble", length / 2);
                }
            }
            Self::ReadOnly => mode(0o444),
            Self::Executable => mode(0o755),
            _ => {
                let _ = std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path));
                let _ = std::fs::remove_file(&aside);
                match self {
                    Self::HardLink => {
                        std::fs::write(path, "old").expect("a file can be written");
                        std::fs::hard_link(path, &aside).expect("a link can be made");
                    }
                    Self::Symlink => {
                        std::fs::write(&aside, "old").expect("a file can be written");
                        symlink("aside", path).expect("a link can be made");
                    }
                    Self::Dangling => symlink("nowhere", path).expect("a link can be made"),
                    Self::Directory => std::fs::create_dir(path).expect("a directory can be made"),
                    _ => {}
                }
            }
        }
    }
}
