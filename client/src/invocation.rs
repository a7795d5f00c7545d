//! What the wrapper was asked for: `zccache TOOL ARGS…`, or `TOOL ARGS…` through a symlink named like the tool.

use std::ffi::CStr;

/// The wrapper's own name; under any other name it stands for the tool of that name.
pub const OWN_NAME: &[u8] = b"zccache";

/// The wrapper's command line, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation<'a> {
    /// `zccache TOOL ARGS…`; the tool's `argv` is `args`, as typed.
    Prefix {
        /// The tool first, then its arguments.
        args: &'a [&'static CStr],
    },
    /// `…/gcc ARGS…`, where `gcc` is a link to us; the tool's `argv[0]` becomes the real tool's path.
    Link {
        /// The link first, then the tool's arguments.
        args: &'a [&'static CStr],
    },
    /// `zccache --help`.
    Help,
    /// `zccache --version`.
    Version,
    /// `zccache` alone.
    Nothing,
}

impl<'a> Invocation<'a> {
    /// Understands the arguments given to `main`.
    pub fn parse(args: &'a [&'static CStr]) -> Self {
        match args {
            [] => Self::Nothing,
            [own, ..] if base_name(own.to_bytes()) != OWN_NAME => Self::Link { args },
            [_] => Self::Nothing,
            [_, option] if matches!(option.to_bytes(), b"--help" | b"-h") => Self::Help,
            [_, option] if matches!(option.to_bytes(), b"--version" | b"-V") => Self::Version,
            [_, args @ ..] => Self::Prefix { args },
        }
    }
}

/// What follows the last slash.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_we_are_called_by_decides() {
        let cases: [(&[&'static CStr], Invocation<'_>); 8] = [
            (&[], Invocation::Nothing),
            (&[c"/x/zccache"], Invocation::Nothing),
            (&[c"zccache", c"--help"], Invocation::Help),
            (&[c"zccache", c"--version"], Invocation::Version),
            (&[c"zccache", c"gcc", c"--version"], Invocation::Prefix { args: &[c"gcc", c"--version"] }),
            (&[c"zccache", c"--help", c"x"], Invocation::Prefix { args: &[c"--help", c"x"] }),
            (&[c"/x/gcc"], Invocation::Link { args: &[c"/x/gcc"] }),
            (&[c"gcc", c"--help"], Invocation::Link { args: &[c"gcc", c"--help"] }),
        ];
        for (args, expected) in cases {
            assert_eq!(Invocation::parse(args), expected);
        }
    }
}
