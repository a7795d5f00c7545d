//! What is compiled: a C++ file with a great many headers, a trivial C file, the C files of Lua, and thirty trivial ones.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::Command;

/// The files of one cold build of trivial files.
pub const TRIVIAL_FILES: usize = 30;

/// Class templates that are instantiated, to make an object of a few hundred KB.
const INSTANTIATIONS: usize = 8;

/// The standard library's headers that the C++ file includes: with all they include in turn, some 240.
const STANDARD_HEADERS: [&str; 5] = ["iostream", "map", "regex", "string", "vector"];

/// How the C++ file is compiled.
const HEADERS_CPP: &str = "g++ -O1 -g0 -c headers.cpp -o out.o";

/// A compile, and how much there is to it.
pub struct Compile {
    /// The command line; the object is `out.o`.
    pub words: Vec<String>,
    /// Files that it includes.
    pub headers: usize,
    /// The object's size.
    pub object_bytes: u64,
}

/// A C++ file with some 240 headers.
///
/// # Errors
/// If it cannot be written or the compiler fails.
pub fn headers_cpp(place: &Path) -> io::Result<Compile> {
    write_headers_cpp(place, 0)?;
    compile(HEADERS_CPP, place)
}

/// Writes that file as no round before has had it, and says how it is compiled.
///
/// # Errors
/// If it cannot be written.
pub fn new_headers_cpp(place: &Path, round: usize) -> io::Result<Vec<Vec<String>>> {
    write_headers_cpp(place, round + 1)?;
    Ok(vec![HEADERS_CPP.split(' ').map(String::from).collect()])
}

fn write_headers_cpp(place: &Path, round: usize) -> io::Result<()> {
    let mut text = format!("extern int round_{round};\n");
    for header in STANDARD_HEADERS {
        let _ = writeln!(text, "#include <{header}>");
    }
    for n in 0..INSTANTIATIONS {
        let _ = writeln!(
            text,
            "struct Key{n} {{ int value; bool operator<(const Key{n} &o) const {{ return value < o.value; }} }};\n\
             std::map<Key{n}, std::vector<std::string>> table{n};\n\
             void fill{n}(int count) {{ for (int i = 0; i < count; i++) table{n}[Key{n}{{i}}].push_back(std::to_string(i)); }}\n\
             bool match{n}(const std::string &s) {{ return std::regex_match(s, std::regex(\"a+{n}\")); }}"
        );
    }
    std::fs::write(place.join("headers.cpp"), text)
}

/// A C file of one line.
///
/// # Errors
/// As [`headers_cpp`].
pub fn trivial_c(place: &Path) -> io::Result<Compile> {
    std::fs::write(place.join("trivial.c"), crate::sources::SMALL)?;
    compile("gcc -c trivial.c -o out.o", place)
}

/// The sources of a small program that none of us wrote.
pub struct Lua {
    /// Name and text of each.
    files: Vec<(String, String)>,
}

impl Lua {
    /// Reads the sources and headers in a directory.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "c" || extension == "h") {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                files.push((name, std::fs::read_to_string(&path)?));
            }
        }
        files.sort();
        Ok(Self { files })
    }

    /// How many files are compiled.
    pub fn count(&self) -> usize {
        self.sources().count()
    }

    fn sources(&self) -> impl Iterator<Item = &str> {
        // What does not begin so are programs that include all the others.
        self.files
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.starts_with('l') && name.ends_with(".c"))
    }

    /// Writes them as no round before has had them, with a declaration more, and says how each is compiled.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, place: &Path, round: usize) -> io::Result<Vec<Vec<String>>> {
        for (name, text) in &self.files {
            let more =
                if name.ends_with(".c") { format!("extern int round_{round};\n") } else { String::new() };
            std::fs::write(place.join(name), format!("{text}{more}"))?;
        }
        let words = |name: &str| {
            let stem = name.trim_end_matches(".c");
            let line =
                format!("gcc -O2 -Wall -std=gnu99 -DLUA_COMPAT_5_3 -DLUA_USE_LINUX -c {name} -o {stem}.o");
            line.split(' ').map(String::from).collect()
        };
        Ok(self.sources().map(words).collect())
    }
}

/// Writes trivial C files that no round before has had, and says how each is compiled.
///
/// # Errors
/// If they cannot be written.
pub fn trivial_files(place: &Path, round: usize) -> io::Result<Vec<Vec<String>>> {
    let one = |n: usize| {
        let text = format!(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
             char *copy_{round}_{n}(const char *s) {{ char *c = malloc(strlen(s) + 1); return c ? strcpy(c, s) : c; }}\n\
             void say_{round}_{n}(const char *s) {{ printf(\"%d: %s\\n\", {n}, s); }}\n"
        );
        std::fs::write(place.join(format!("cold{n}.c")), text)?;
        Ok(format!("gcc -O2 -c cold{n}.c -o cold{n}.o").split(' ').map(String::from).collect())
    };
    (0..TRIVIAL_FILES).map(one).collect()
}

fn compile(line: &str, place: &Path) -> io::Result<Compile> {
    let words: Vec<String> = line.split(' ').map(String::from).collect();
    let mut bare = Command::new(&words[0]);
    bare.args(&words[1..]).args(["-MD", "-MF", "out.d"]).current_dir(place);
    if !bare.status()?.success() {
        return Err(io::Error::other(format!("run `{line}`")));
    }
    let dependencies = std::fs::read_to_string(place.join("out.d"))?;
    // The target and the source are words of the rule too, and so is the mark of a continued line.
    let headers = dependencies.split_whitespace().filter(|word| *word != "\\").count().saturating_sub(2);
    Ok(Compile { words, headers, object_bytes: std::fs::metadata(place.join("out.o"))?.len() })
}
