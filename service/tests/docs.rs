//! The pages on the environment and on passing through, kept in step with the tables they tell of.

use zccache_service::any_tool::REASONS as OTHERS;
use zccache_service::c_family::environment::{IGNORABLE, VARIABLES};
use zccache_service::c_family::judgement::REASONS;
use zccache_service::planner_elsewhere::{AMBIGUOUS, TERMINAL};
use zccache_service::rust;
use zccache_service::unwatched::{UNDECLARED, UNOBSERVED_SYSTEM};

fn page(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_pass_through_reason_has_its_row_and_no_row_is_without_a_reason() {
    let page = page("pass-through.md");
    let rows = page.split_once("## Reasons").expect("the heading").1;
    let reasons = rows.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    let mut known: Vec<&str> = REASONS
        .iter()
        .chain(OTHERS)
        .chain(rust::judgement::REASONS)
        .chain(&[AMBIGUOUS, TERMINAL, UNDECLARED, UNOBSERVED_SYSTEM])
        .copied()
        .collect();
    known.sort_unstable();
    known.dedup();
    assert_eq!(reasons.collect::<Vec<_>>(), known);
}

#[test]
fn every_variable_has_its_row_with_its_reason() {
    let page = page("environment.md");
    let rust = rust::environment::VARIABLES.iter().map(|variable| (variable.name, variable.why));
    let all = VARIABLES.iter().map(|variable| (variable.name, variable.why)).chain(rust);
    for (name, why) in all {
        let start = format!("| `{name}` |");
        let row = page.lines().find(|row| row.starts_with(&start));
        assert!(row.is_some_and(|row| row.contains(why)), "{name} has no row like the table's");
    }
    let rows = page.lines().filter(|row| row.starts_with("| `")).count();
    let variables = VARIABLES.len() + rust::environment::VARIABLES.len();
    assert_eq!(rows, variables + 3, "a row for each variable, three for those that forbid caching");
    for name in IGNORABLE {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
