//! Watches, while a tool runs, the names that decide where its inputs are: the twin of `watch_linux.rs`.
//!
//! A name may be told in its long form or in its short one (`PROGRA~1`); what may be short is taken for any.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use crate::sys::changes::{Changed, Changes};

/// What marks a short form.
const SHORT: char = '~';

/// Watched directories, and the names that matter in them, in lower case.
pub struct Watch {
    directories: Vec<(Changes, HashSet<String>)>,
}

impl Watch {
    /// Begins to watch. A directory that is not there needs no watch: its name is one in another directory.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn new(steps: &HashMap<PathBuf, HashSet<OsString>>) -> io::Result<Self> {
        let mut directories = Vec::with_capacity(steps.len());
        for (directory, wanted) in steps {
            match Changes::of(directory) {
                Ok(changes) => directories.push((changes, wanted.iter().map(folded).collect())),
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self { directories })
    }

    /// The first name that came, went or was replaced, if one did.
    pub fn changed(&mut self) -> Option<String> {
        for (changes, wanted) in &mut self.directories {
            loop {
                match changes.look() {
                    Ok(Changed::Nothing) => break,
                    Ok(Changed::Names(names)) => {
                        let matters = |name: &&OsString| concerns(&folded(name), wanted);
                        if let Some(name) = names.iter().find(matters) {
                            return Some(name.to_string_lossy().into_owned());
                        }
                    }
                    Ok(Changed::Much) => return Some("a watched directory".into()),
                    Err(e) => return Some(e.to_string()),
                }
            }
        }
        None
    }
}

fn folded(name: &OsString) -> String {
    name.to_string_lossy().to_lowercase()
}

/// Whether a change of `name` may be one of a wanted name.
fn concerns(name: &str, wanted: &HashSet<String>) -> bool {
    wanted.contains(name) || name.contains(SHORT) || wanted.iter().any(|name| name.contains(SHORT))
}
