//! Opening the cache directory and its index, and what is done with one that cannot be read.

use std::path::Path;

use crate::index::{Index, IndexError};

/// The index below `cache_dir`; an empty one in the place of one that is damaged or of another version.
///
/// # Errors
/// Why there is none, for people.
pub fn open_index(cache_dir: &Path) -> Result<Index, String> {
    let explain = |e: &dyn std::fmt::Display| format!("{}: {e}", cache_dir.display());
    zccache_proto::own_directory::prepare(cache_dir).map_err(|e| e.to_string())?;
    // sled makes its files before it finds that it cannot write them; ask first, for a clearer message.
    let probe = cache_dir.join(".writable");
    std::fs::write(&probe, b"zccache")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|e| explain(&e))?;
    let directory = cache_dir.join("index");
    match Index::open(&directory) {
        Ok(index) => return Ok(index),
        Err(IndexError::Sled(sled::Error::Io(e))) if e.kind() == std::io::ErrorKind::Other => {
            return Err(format!("{}: in use by another service ({e})", cache_dir.display()));
        }
        Err(IndexError::Sled(sled::Error::Io(e))) if e.raw_os_error().is_some() && directory.is_dir() => {
            return Err(explain(&e));
        }
        Err(IndexError::OtherFormat) => {
            tracing::info!("the index is of another version; starting with an empty one");
            std::fs::remove_dir_all(&directory).map_err(|e| explain(&e))?;
        }
        Err(damage) => {
            tracing::warn!(%damage, "the index cannot be read; starting with an empty one");
            set_aside(&directory)?;
        }
    }
    Index::open(&directory).map_err(|e| explain(&e))
}

/// How long the files of the index below `cache_dir` are, in bytes; 0 if there is none.
pub fn database_bytes(cache_dir: &Path) -> u64 {
    let files = std::fs::read_dir(cache_dir.join("index")).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// Renames a damaged index, so that nothing a person may want to look at is lost; an older one goes. Where that
/// cannot be, the damaged one goes itself: nobody else can use it.
fn set_aside(directory: &Path) -> Result<(), String> {
    let aside = directory.with_extension("damaged");
    let _ = std::fs::remove_dir_all(&aside).or_else(|_| std::fs::remove_file(&aside));
    match std::fs::rename(directory, &aside) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(_) => std::fs::remove_dir_all(directory).map_err(|e| format!("{}: {e}", directory.display())),
        Ok(()) => Ok(()),
    }
}
