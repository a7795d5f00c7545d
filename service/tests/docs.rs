//! The pages on the environment and on passing through, kept in step with the tables they tell of.

use zccache_service::any_tool::REASONS as OTHERS;
use zccache_service::c_family::environment::{IGNORABLE, VARIABLES};
use zccache_service::c_family::judgement::REASONS;

fn page(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_pass_through_reason_has_its_row_and_no_row_is_without_a_reason() {
    let page = page("pass-through.md");
    let rows = page.split_once("## Reasons").expect("the heading").1;
    let reasons = rows.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    let mut known: Vec<&str> = REASONS.iter().chain(OTHERS).copied().collect();
    known.sort_unstable();
    known.dedup();
    assert_eq!(reasons.collect::<Vec<_>>(), known);
}

#[test]
fn every_variable_has_its_row_with_its_reason() {
    let page = page("environment.md");
    for variable in VARIABLES {
        let name = format!("| `{}` |", variable.name);
        let row = page.lines().find(|row| row.starts_with(&name));
        assert!(
            row.is_some_and(|row| row.contains(variable.why)),
            "{} has no row like the table's",
            variable.name
        );
    }
    let rows = page.lines().filter(|row| row.starts_with("| `")).count();
    assert_eq!(rows, VARIABLES.len() + 2, "a row for each variable, two for those that forbid caching");
    for name in IGNORABLE {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
