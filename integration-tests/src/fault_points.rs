//! Where a service can be told to fail: the points of `actors/src/faults.rs`, as the source names them.
//!
//! Read from the source, so that a point that is new there is missed where every one is to be tried.

use std::collections::BTreeSet;
use std::path::Path;

use crate::binaries::workspace;

/// How a point is written.
const CALLS: [&str; 2] = ["faults::check(\"", "faults::pass(\""];

/// All of them.
///
/// # Panics
/// If the source is not there, or no point is found in it.
pub fn fault_points() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(&workspace().join("actors/src"), &mut found);
    assert!(found.len() > 30, "only {} points were found: has the call changed its shape?", found.len());
    found
}

fn collect(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).expect("the source is there").filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for call in CALLS {
            let points = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(points.map(str::to_owned));
        }
    }
}
