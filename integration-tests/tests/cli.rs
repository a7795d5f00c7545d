//! `zccache-client`: what scripts may rely on, and that errors are clear.

use serde_json::Value;
use zccache_integration_tests::{Sandbox, sources};

fn one_miss_and_one_hit() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.compile("gcc -c a.c").expect_success();
    sandbox.compile("gcc -c a.c").expect_success();
    sandbox
}

#[test]
fn stats_json_has_every_field_of_the_contract() {
    let sandbox = one_miss_and_one_hit();
    sandbox.compile("gcc --version").expect_success();
    let stats = sandbox.stats();
    let json = &stats.json;
    for (name, value) in [
        ("requests", 3),
        ("hits", 1),
        ("misses", 1),
        ("passed_through", 1),
        ("fallbacks_reported", 0),
        ("stored", 1),
    ] {
        assert_eq!(json[name], Value::from(value), "{name} in {json}");
    }
    for table in ["not_stored", "pass_through_reasons", "degraded"] {
        assert!(json[table].is_object(), "{table} in {json}");
    }
    assert_eq!(stats.reasons("pass_through_reasons").values().sum::<u64>(), 1);
    assert_eq!(json["store"]["records"], 1, "{json}");
    for name in ["blobs", "bytes", "limit_bytes"] {
        assert!(json["store"][name].as_u64().is_some_and(|n| n > 0), "store.{name} in {json}");
    }
    let service = &json["service"];
    assert!(service["version"].as_str().is_some_and(|v| !v.is_empty()));
    assert_eq!(service["protocol"], zccache_proto::message::PROTOCOL_VERSION);
    assert_eq!(service["pid"].as_i64(), sandbox.service_pid().map(i64::from));
    assert!(service["uptime_s"].is_u64());
    assert!(service["rss_bytes"].as_u64().is_some_and(|n| n > 0));
}

#[test]
fn stats_is_a_readable_table() {
    let sandbox = one_miss_and_one_hit();
    let text = sandbox.client("stats").expect_success().out();
    for word in ["hits", "misses", "stored"] {
        assert!(text.to_lowercase().contains(word), "{word} in\n{text}");
    }
}

#[test]
fn stats_tells_where_the_time_of_hits_went() {
    let sandbox = one_miss_and_one_hit();
    sandbox.compile("gcc -c a.c").expect_success();
    let text = sandbox.client("stats --timing").expect_success().out();
    let timing = sandbox.stats().json["timing"].as_array().cloned().unwrap_or_default();
    let told = timing.iter().filter_map(|phase| phase["phase"].as_str());
    // The first hit may have waited for its record to be stored.
    let told: Vec<&str> = told.filter(|phase| *phase != "look_up").collect();
    assert_eq!(told, ["hand_over", "receive", "plan", "check", "place", "reply", "total"]);
    let total = timing.last().unwrap();
    assert_eq!(total["count"], 2, "{timing:?}");
    for phase in &timing {
        let [count, p50, p95, max] =
            ["count", "p50_ns", "p95_ns", "max_ns"].map(|name| phase[name].as_u64().unwrap());
        assert!((1..=2).contains(&count) && p50 <= p95 && p95 <= max, "{phase}");
        assert!(max <= total["max_ns"].as_u64().unwrap(), "{phase} in {timing:?}");
        assert!(text.contains(phase["phase"].as_str().unwrap()), "{phase} in\n{text}");
    }
    sandbox.client("stats --zero").expect_success();
    assert_eq!(sandbox.stats().json["timing"], Value::Array(Vec::new()));
}

#[test]
fn zero_sets_the_counters_to_zero_and_keeps_the_cache() {
    let sandbox = one_miss_and_one_hit();
    sandbox.client("stats --zero").expect_success();
    let stats = sandbox.stats();
    assert_eq!((stats.counters.requests, stats.counters.hits, stats.counters.misses), (0, 0, 0));
    assert_eq!(stats.json["store"]["records"], 1);
    sandbox.compile("gcc -c a.c").expect_success();
    assert_eq!(sandbox.stats().counters.hits, 1);
}

#[test]
fn clear_forgets_everything_stored() {
    let sandbox = one_miss_and_one_hit();
    sandbox.client("clear").expect_success();
    let json = sandbox.stats().json;
    assert_eq!((&json["store"]["records"], &json["store"]["blobs"]), (&Value::from(0), &Value::from(0)));
    sandbox.compile("gcc -c a.c").expect_success();
    sandbox.compile("gcc -c a.c").expect_success();
    let counters = sandbox.stats().counters;
    assert_eq!((counters.misses, counters.hits), (2, 2));
}

#[test]
fn status_names_the_service_and_its_places() {
    let sandbox = Sandbox::new();
    sandbox.start();
    let text = sandbox.client("status").expect_success().out();
    let pid = sandbox.service_pid().unwrap().to_string();
    for word in [pid.as_str(), sandbox.cache_dir().to_str().unwrap(), "serving"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
}

#[test]
fn what_needs_a_service_says_that_there_is_none() {
    let sandbox = Sandbox::new();
    for line in ["status", "stats", "stats --json", "stats --zero"] {
        let outcome = sandbox.client(line);
        assert!(!outcome.success(), "{line}: {outcome:?}");
        assert!(!outcome.err().is_empty() && outcome.out().is_empty(), "{line}: {outcome:?}");
        assert_eq!(sandbox.service_pid(), None, "{line} started a service");
    }
}

#[test]
fn what_cannot_be_done_is_an_error_with_a_reason() {
    let mut sandbox = Sandbox::new();
    sandbox.set("ZCCACHE_RUNTIME_DIR", "/proc/zccache");
    let outcome = sandbox.client("start");
    assert!(!outcome.success() && outcome.err().contains("/proc/zccache"), "{outcome:?}");
    for line in ["", "no-such-command", "stats --no-such-option"] {
        let outcome = sandbox.client(line);
        assert!(!outcome.success() && !outcome.err().is_empty(), "{line}: {outcome:?}");
    }
}

#[test]
fn config_shows_each_value_with_its_origin() {
    let mut sandbox = Sandbox::new();
    let text = sandbox.client("config").expect_success().out();
    assert!(text.contains("default"), "{text}");
    sandbox.set("ZCCACHE_DIR", sandbox.path("elsewhere"));
    let text = sandbox.client("config").expect_success().out();
    assert!(text.contains("elsewhere") && text.contains("ZCCACHE_DIR"), "{text}");
}

#[test]
fn an_unknown_key_in_the_configuration_is_an_error_with_a_suggestion() {
    let sandbox = Sandbox::new();
    let known = sandbox.client("config").expect_success().out();
    let key = known.split(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_')).find(|w| {
        let parts: Vec<_> = w.split('.').collect();
        parts.len() == 2
            && parts.iter().all(|p| p.len() > 2 && p.chars().all(|c| c.is_lowercase() || c == '_'))
    });
    let key = key.unwrap_or_else(|| panic!("no `section.name` in\n{known}"));
    let (section, name) = key.split_once('.').unwrap();
    std::fs::write(sandbox.path("config.toml"), format!("[{section}]\n{name}x = 1\n")).unwrap();
    let outcome = sandbox.client("config");
    assert!(!outcome.success() && outcome.err().contains(name), "{outcome:?}");
    assert!(outcome.err().contains(&format!("{name}x")), "{outcome:?}");
}

#[test]
fn a_wrapper_without_arguments_says_how_it_is_used() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.compile("");
    assert!(!outcome.success() && (outcome.out() + &outcome.err()).contains("zccache"), "{outcome:?}");
}
