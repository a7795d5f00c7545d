//! What can go wrong with storage.

use crate::index::IndexError;

/// Why something was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No usable index; says why.
    #[error("the cache is unavailable: {0}")]
    Unavailable(String),
    /// The result alone is larger than the limit.
    #[error("the result is larger than the cache")]
    LargerThanCache,
    /// The record names a content that is neither stored nor comes with it.
    #[error("a content is missing")]
    ContentMissing,
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A blob could not be written.
    #[error("blob: {0}")]
    Blob(#[from] std::io::Error),
}
