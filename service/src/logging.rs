//! Logging: `tracing` events to a file per day below the state directory.

use std::path::{Path, PathBuf};

use tracing_appender::rolling::{InitError, RollingFileAppender, Rotation};
use tracing_subscriber::EnvFilter;

/// How many days of logs are kept.
const LOG_FILES_MAX: usize = 7;

/// Starts logging into `directory`; returns the pattern of the files' names, or why there is no log.
///
/// # Errors
/// If the directory cannot be made or written; the service works without a log.
pub fn start(directory: &Path, level: &str) -> Result<PathBuf, String> {
    use zccache_actors::sys::DirBuilderExt;
    let explain = |e: &dyn std::fmt::Display| format!("there is no log: {}: {e}", directory.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|e| explain(&e))?;
    let appender = appender(directory).map_err(|e| explain(&e))?;
    let filter = EnvFilter::try_new(level).map_err(|e| explain(&e))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(appender))
        .finish();
    tracing::subscriber::set_global_default(subscriber).map_err(|e| explain(&e))?;
    log_panics();
    Ok(directory.join("service.*.log"))
}

fn appender(directory: &Path) -> Result<RollingFileAppender, InitError> {
    RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("service")
        .filename_suffix("log")
        .max_log_files(LOG_FILES_MAX)
        .build(directory)
}

/// Panics go to the log: standard error is `/dev/null` in a daemon.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!(%info, "a bug: panic");
        before(info);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_so_many_days_is_kept() {
        // Of earlier days, and today's is one more.
        for (earlier, kept) in [(LOG_FILES_MAX - 1, LOG_FILES_MAX), (LOG_FILES_MAX, LOG_FILES_MAX)] {
            let temp = tempfile::tempdir().unwrap();
            for day in 1..=earlier {
                std::fs::write(temp.path().join(format!("service.2020-01-{day:02}.log")), "").unwrap();
            }
            appender(temp.path()).unwrap();
            assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), kept, "{earlier}");
        }
    }
}
