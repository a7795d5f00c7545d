//! Configuration: one table of options; each from the environment, the file, or its default, in that order.
//!
//! A key that is not in the table is an error with a suggestion: a misspelt limit must not be silently ignored.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

/// The most bytes a configuration file may have: far more than every option spelt out.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// One option.
struct Setting {
    /// Section and name in the file: `cache.limit`; the variable is `ZCCACHE_CACHE_LIMIT`.
    key: &'static str,
    /// A shorter variable that scripts rely on, if there is one; it wins over the regular one.
    alias: Option<&'static str>,
    /// One line for `config`.
    help: &'static str,
}

const SETTINGS: [Setting; 8] = [
    Setting { key: "cache.dir", alias: Some("ZCCACHE_DIR"), help: "cache directory" },
    Setting {
        key: "cache.limit",
        alias: None,
        help: "most bytes of stored results, such as 5GiB; auto: 10GiB or a tenth of the disk",
    },
    Setting {
        key: "cache.max_age",
        alias: None,
        help: "how long a result may be unused, such as 90d or 12h; auto: no limit to that",
    },
    Setting { key: "log.dir", alias: None, help: "directory of the log files" },
    Setting {
        key: "log.level",
        alias: Some("ZCCACHE_LOG"),
        help: "log level filter: error, warn, info, debug, trace, or per module",
    },
    Setting {
        key: "observer.kind",
        alias: Some("ZCCACHE_OBSERVER"),
        help: "how tools are watched: auto, observed, declared",
    },
    Setting {
        key: "rust.incremental",
        alias: None,
        help: "Rust's incremental compiles: pass (run as they are) or strip (run and cached as if not incremental)",
    },
    Setting {
        key: "service.workers",
        alias: None,
        help: "threads that serve clients; auto: twice the processors, at least 4",
    },
];

/// How tools are to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObserverKind {
    /// By the kernel if it can, else by what they declare.
    Auto,
    /// By the kernel.
    Observed,
    /// By what they declare.
    Declared,
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Absolute.
    pub cache_dir: PathBuf,
    /// `None`: to be chosen by the size of the disk.
    pub limit_bytes: Option<u64>,
    /// `None`: however old.
    pub max_age: Option<Duration>,
    /// Absolute.
    pub log_dir: PathBuf,
    /// A `tracing` filter.
    pub log_level: String,
    /// How tools are watched.
    pub observer: ObserverKind,
    /// Rust's incremental compiles are run and cached as if they were not.
    pub strip_incremental: bool,
    /// `None`: to be chosen by the number of processors.
    pub workers: Option<usize>,
    /// Each option's key, value and origin, for people.
    pub shown: Vec<Shown>,
}

/// An option as `config` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    /// Section and name.
    pub key: &'static str,
    /// The value in force.
    pub value: String,
    /// `default`, the variable's name, or the file's path.
    pub origin: String,
    /// What it means.
    pub help: &'static str,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A key that there is not.
    #[error("{}: unknown key `{key}`{}", path.display(), suggestion(key))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that cannot be.
    #[error("{origin}: {key}: {message}")]
    Value {
        /// Where it was set.
        origin: String,
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}

fn suggestion(key: &str) -> String {
    let distance = |s: &&Setting| strsim::damerau_levenshtein(s.key, key);
    match SETTINGS.iter().min_by_key(distance).filter(|s| distance(s) <= s.key.len() / 2) {
        Some(setting) => format!("; did you mean `{}`?", setting.key),
        None => format!("; the keys are {}", SETTINGS.map(|s| s.key).join(", ")),
    }
}

impl Config {
    /// The configuration for an environment. Relative paths are taken from the working directory now.
    ///
    /// # Errors
    /// See [`ConfigError`]. A file that is not there is no error, unless `ZCCACHE_CONFIG` names it.
    pub fn load(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let var = |name: &str| var(name).filter(|v| !v.is_empty());
        let file = File::load(&var)?;
        let defaults = Defaults::new(&var);
        let mut shown = Vec::new();
        for setting in &SETTINGS {
            let regular = format!("ZCCACHE_{}", setting.key.replace('.', "_").to_uppercase());
            let from = |name: &str| var(name).map(|v| (v.to_string_lossy().into_owned(), name.to_owned()));
            let (value, origin) = setting
                .alias
                .and_then(from)
                .or_else(|| from(&regular))
                .or_else(|| file.get(setting.key))
                .unwrap_or_else(|| (defaults.of(setting.key), "default".into()));
            shown.push(Shown { key: setting.key, value, origin, help: setting.help });
        }
        Self::parse(shown)
    }

    fn parse(mut shown: Vec<Shown>) -> Result<Self, ConfigError> {
        for s in &mut shown {
            if matches!(s.key, "cache.dir" | "log.dir") {
                let absolute = std::path::absolute(&s.value).unwrap_or_else(|_| PathBuf::from(&s.value));
                s.value = absolute.display().to_string();
            }
        }
        let get = |key: &'static str| {
            let found = shown.iter().find(|s| s.key == key);
            found.expect("invariant: every setting is shown")
        };
        let wrong = |key: &'static str, message: String| ConfigError::Value {
            origin: get(key).origin.clone(),
            key,
            message,
        };
        let limit = &get("cache.limit").value;
        let limit_bytes = match limit.as_str() {
            "auto" => None,
            text => Some(
                text.parse::<ByteSize>()
                    .map_err(|e| {
                        wrong("cache.limit", format!("`{limit}` is no size ({e}); write for example 5GiB"))
                    })?
                    .as_u64(),
            ),
        };
        let max_age = match get("cache.max_age").value.as_str() {
            "auto" => None,
            text => Some(zccache_proto::age::parse(text).map_err(|e| wrong("cache.max_age", e))?),
        };
        let observer = match get("observer.kind").value.as_str() {
            "auto" => ObserverKind::Auto,
            "observed" => ObserverKind::Observed,
            "declared" => ObserverKind::Declared,
            other => {
                return Err(wrong(
                    "observer.kind",
                    format!("`{other}` is not one of auto, observed, declared"),
                ));
            }
        };
        let strip_incremental = match get("rust.incremental").value.as_str() {
            "pass" => false,
            "strip" => true,
            other => return Err(wrong("rust.incremental", format!("`{other}` is not one of pass, strip"))),
        };
        let workers = match get("service.workers").value.as_str() {
            "auto" => None,
            text => Some(text.parse().ok().filter(|n| (1..=WORKERS_MAX).contains(n)).ok_or_else(|| {
                wrong("service.workers", format!("`{text}` is not auto or a number from 1 to {WORKERS_MAX}"))
            })?),
        };
        let log_level = get("log.level").value.clone();
        tracing_subscriber::EnvFilter::try_new(&log_level).map_err(|e| {
            wrong("log.level", format!("`{log_level}` is no filter ({e}); write for example info"))
        })?;
        Ok(Self {
            cache_dir: get("cache.dir").value.clone().into(),
            limit_bytes,
            max_age,
            log_dir: get("log.dir").value.clone().into(),
            log_level,
            observer,
            strip_incremental,
            workers,
            shown,
        })
    }
}

/// More threads than this serve nobody better: each serves many clients.
const WORKERS_MAX: usize = 256;

/// Where a user's own files lie unless said otherwise, as the system has it: its variable, and the place of each kind of
/// file below.
#[cfg(unix)]
const HOME: [&str; 4] = ["HOME", ".cache/zccache", ".local/state/zccache", ".config/zccache"];
/// The same on Windows.
#[cfg(windows)]
const HOME: [&str; 4] = ["LOCALAPPDATA", r"zccache\cache", r"zccache\state", "zccache"];

/// What holds where nobody says otherwise; by the XDG base directory specification.
struct Defaults {
    cache: PathBuf,
    state: PathBuf,
}

impl Defaults {
    fn new(var: &impl Fn(&str) -> Option<OsString>) -> Self {
        let absolute = |name: &str| var(name).map(PathBuf::from).filter(|p| p.is_absolute());
        // Without a home there is at least the runtime directory, which is ours alone. One that does not exist is not made:
        // builds are given such a home to find out who would use it.
        let [variable, cache, state, _] = HOME;
        let home = absolute(variable)
            .filter(|home| home.is_dir())
            .unwrap_or_else(|| zccache_proto::endpoint::Endpoint::resolve(var).directory().to_owned());
        let base =
            |name, below| absolute(name).map_or_else(|| home.join(below), |given| given.join("zccache"));
        Self { cache: base("XDG_CACHE_HOME", cache), state: base("XDG_STATE_HOME", state) }
    }

    fn of(&self, key: &str) -> String {
        match key {
            "cache.dir" => self.cache.display().to_string(),
            "log.dir" => self.state.display().to_string(),
            "log.level" => "info".into(),
            "rust.incremental" => "pass".into(),
            _ => "auto".into(),
        }
    }
}

/// The configuration file.
struct File {
    path: PathBuf,
    table: toml::Table,
}

impl File {
    fn load(var: &impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let named = var("ZCCACHE_CONFIG").map(PathBuf::from);
        let absolute = |name: &str| var(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let [variable, .., config] = HOME;
        let given = || absolute("XDG_CONFIG_HOME").map(|given| given.join("zccache"));
        let usual = || given().or_else(|| absolute(variable).map(|home| home.join(config)));
        let Some(path) = named.clone().or_else(|| usual().map(|d| d.join("config.toml"))) else {
            return Ok(Self { path: PathBuf::new(), table: toml::Table::new() });
        };
        let text = match read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => String::new(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let table = text.parse::<toml::Table>();
        let table = table.map_err(|e| ConfigError::Syntax { path: path.clone(), message: e.to_string() })?;
        let file = Self { path, table };
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let unknown = |key: String| ConfigError::UnknownKey { path: self.path.clone(), key };
        for (section, value) in &self.table {
            let toml::Value::Table(names) = value else { return Err(unknown(section.clone())) };
            for name in names.keys() {
                let key = format!("{section}.{name}");
                if !SETTINGS.iter().any(|s| s.key == key) {
                    return Err(unknown(key));
                }
            }
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<(String, String)> {
        let (section, name) = key.split_once('.')?;
        let value = match self.table.get(section)?.get(name)? {
            toml::Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        Some((value, self.path.display().to_string()))
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    // By what is read, not by what the length says: a device has none, and no end.
    let most = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if most as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("more than {FILE_BYTES_MAX} bytes are no configuration")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: Option<&str>, vars: &[(&str, &str)]) -> Result<Config, String> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("config.toml");
        let named = file.map(|text| {
            std::fs::write(&path, text).unwrap();
            path.clone().into_os_string()
        });
        let var = |name: &str| {
            let set = vars.iter().find(|v| v.0 == name).map(|v| v.1.into());
            let home = (name == HOME[0]).then(|| temp.path().as_os_str().to_owned());
            let config = if name == "ZCCACHE_CONFIG" { named.clone() } else { None };
            set.or(config).or(home)
        };
        // As `main` prints it.
        let told = |e: ConfigError| format!("{:#}", anyhow::Error::from(e));
        Config::load(var).map_err(|e| told(e).replace(&*path.to_string_lossy(), "FILE"))
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
        let file = Some("[cache]\nlimit = \"1GiB\"\n[service]\nworkers = 3\n");
        let config = load(file, &[("ZCCACHE_CACHE_LIMIT", "2 MiB"), ("ZCCACHE_DIR", "/c")]).unwrap();
        assert_eq!((config.limit_bytes, config.workers), (Some(2 << 20), Some(3)));
        assert_eq!(config.cache_dir, Path::new("/c"));
        assert!(config.log_dir.ends_with(HOME[2]), "{:?}", config.log_dir);
        // A home that does not exist is as good as none.
        let homeless = load(None, &[(HOME[0], "/proc/nowhere"), ("ZCCACHE_RUNTIME_DIR", "/r")]).unwrap();
        assert_eq!(
            (&*homeless.cache_dir, &*homeless.log_dir),
            (&*Path::new("/r").join(HOME[1]), &*Path::new("/r").join(HOME[2]))
        );
        let origins: Vec<_> = config.shown.iter().map(|s| s.origin.as_str()).collect();
        assert_eq!(origins[..3], ["ZCCACHE_DIR", "ZCCACHE_CACHE_LIMIT", "default"]);
        let config = load(None, &[("ZCCACHE_CACHE_MAX_AGE", "90d")]).unwrap();
        assert_eq!(config.max_age, Some(Duration::from_secs(90 * 24 * 3600)));
    }

    #[test]
    fn mistakes_are_told_with_what_to_do() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
        let cases: &[Case] = &[
            ("[cache]\nlimt = 1\n", &[], "FILE: unknown key `cache.limt`; did you mean `cache.limit`?"),
            (
                "nonsense = 1\n",
                &[],
                "FILE: unknown key `nonsense`; the keys are cache.dir, cache.limit, cache.max_age, log.dir, log.level, observer.kind, rust.incremental, service.workers",
            ),
            ("[cache]\nlimit = \"much\"\n", &[], "FILE: cache.limit: `much` is no size"),
            ("[cache]\nmax_age = \"old\"\n", &[], "FILE: cache.max_age: `old` is no age"),
            (
                "",
                &[("ZCCACHE_OBSERVER", "eyes")],
                "ZCCACHE_OBSERVER: observer.kind: `eyes` is not one of auto, observed, declared",
            ),
            (
                "",
                &[("ZCCACHE_SERVICE_WORKERS", "0")],
                "ZCCACHE_SERVICE_WORKERS: service.workers: `0` is not auto or a number from 1 to 256",
            ),
            ("[cache\n", &[], "FILE: TOML parse error"),
            (
                "",
                &[("ZCCACHE_SERVICE_WORKERS", "257")],
                "ZCCACHE_SERVICE_WORKERS: service.workers: `257` is not",
            ),
            // Without an end.
            ("", &[("ZCCACHE_CONFIG", "/dev/zero")], "/dev/zero: "),
        ];
        let long = "#".repeat(usize::try_from(FILE_BYTES_MAX).unwrap());
        assert!(load(Some(&long), &[]).is_ok());
        assert!(load(Some(&(long + "#")), &[]).unwrap_err().starts_with("FILE: "));
        for (file, vars, expected) in cases {
            let error = load(Some(file), vars).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let missing = load(None, &[("ZCCACHE_CONFIG", "/nonexistent")]).unwrap_err();
        assert!(missing.starts_with("/nonexistent: cannot be read: "), "{missing}");
        assert_eq!(missing.matches("os error 2").count(), 1, "{missing}");
    }
}
