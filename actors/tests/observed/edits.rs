//! Files that are read and then changed: what was in them before is an input, what is in them after an output.

use super::observing::{Bench, Run};
use zccache_actors::digest::Digest;
use zccache_actors::observation::Seen;
use zccache_actors::observer::{Left, Origin, Unstorable};
use zccache_actors::plan::{Caution, Policy};

static UNKNOWN: Policy = Policy {
    family: "test",
    knows_program: |_| true,
    reads_links_on_its_way_only: false,
    searches: |_| false,
    ignored_reads: &["/proc/filesystems"],
    review: None,
    caution: Caution { chance: false, ..Caution::FULL },
};

/// Runs a script over a file that holds `old`.
fn run(bench: &Bench, script: &str) -> Run {
    bench.clear();
    bench.write("file", "old\n");
    bench.run_with("sh", &["-c", script], |job| {
        job.policy = &UNKNOWN;
        job.foreign_code = false;
    })
}

fn has_old_content(run: &Run, path: &str) -> bool {
    run.observed.sightings.iter().any(|s| {
        let is_reading = |seen: &Seen| matches!(seen, Seen::Read { .. });
        s.path.0 == path.as_bytes()
            && matches!(&s.seen, Seen::Before { seen, digest: Some(d) }
                if is_reading(seen) && *d == Digest::of(b"old\n"))
    })
}

#[test]
fn the_content_before_an_edit_is_an_input_and_the_one_after_it_an_output() {
    let bench = Bench::new();
    for (script, left) in [
        ("sed s/old/new/ file >t && mv t file", Left::File(Origin::Edited)),
        ("read -r x <file; echo new >file", Left::File(Origin::Edited)),
        ("echo new >>file", Left::File(Origin::Edited)),
        ("dd if=/dev/null of=file conv=notrunc 2>&1; echo new 1<>file", Left::File(Origin::Edited)),
        ("read -r x <file; rm file", Left::Removed),
        ("read -r x <file; rm file; echo new >file", Left::File(Origin::Edited)),
    ] {
        let run = run(&bench, script);
        assert_eq!(run.observed.unstorable, None, "{script}: {}", run.stderr());
        assert!(run.effects().contains(&("file".into(), left)), "{script}: {:?}", run.effects());
        assert!(has_old_content(&run, "file"), "{script}: {:?}", run.observed.sightings);
    }
    let alias = run(&bench, "ln -s file alias; :");
    assert!(alias.observed.unstorable.is_some());
}

#[test]
fn the_old_content_of_a_huge_file_is_not_kept() {
    let bench = Bench::new();
    bench.write("file", "");
    // All of it a hole.
    std::fs::File::options().write(true).open(bench.path("file")).unwrap().set_len((256 << 20) + 1).unwrap();
    let run = bench.run_with("sh", &["-c", "head -c 1 file >/dev/null; echo new >>file"], |job| {
        job.policy = &UNKNOWN;
        job.foreign_code = false;
    });
    assert!(
        matches!(run.observed.unstorable, Some(Unstorable::InputChanged(_))),
        "{:?}",
        run.observed.unstorable
    );
}

#[test]
fn another_name_of_an_edited_file_is_read_before_the_edit_as_well() {
    let bench = Bench::new();
    bench.clear();
    bench.write("file", "old\n");
    std::fs::hard_link(bench.path("file"), bench.path("other")).unwrap();
    let run = bench.run_with("sh", &["-c", "read -r x <other; echo new >>file"], |job| job.policy = &UNKNOWN);
    assert!(has_old_content(&run, "other"), "{:?}", run.observed.sightings);
}

#[test]
fn questions_about_an_output_before_it_was_made_are_inputs_of_an_unknown_tool() {
    let bench = Bench::new();
    let asked = run(&bench, "[ -e out ] || echo first >out; [ -s file ] && echo new >file");
    let before = |path: &str, wanted: fn(&Seen) -> bool| {
        asked.observed.sightings.iter().any(|s| {
            s.path.0 == path.as_bytes() && matches!(&s.seen, Seen::Before { seen, .. } if wanted(seen))
        })
    };
    assert_eq!(asked.observed.unstorable, None);
    assert!(before("out", |seen| *seen == Seen::Absent));
    assert!(before("file", |seen| matches!(seen, Seen::Metadata { .. })));
}

#[test]
fn times_and_attributes_that_a_hit_could_not_set_are_told() {
    let bench = Bench::new();
    for (script, is_told) in [
        ("echo >a; touch -d 2020-01-01 a", true),
        ("echo >a; touch a", false),
        ("echo >a; touch -d 2020-01-01 a; rm a", false),
        ("cp -p file a", true),
        ("cp file a", false),
    ] {
        let run = run(&bench, script);
        let told = matches!(run.observed.unstorable, Some(Unstorable::ChangedExisting(_)));
        assert_eq!(told, is_told, "{script}: {:?}", run.observed.unstorable);
    }
}
