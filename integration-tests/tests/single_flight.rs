//! Equal compiles at the same time run the compiler once.

use std::process::{Child, Stdio};

use zccache_integration_tests::{Sandbox, processes, sources, wait};

#[test]
fn eight_equal_compiles_at_once_run_the_compiler_once() {
    let sandbox = Sandbox::new();
    sandbox.start();
    sandbox.write("slow.c", sources::slow());
    let start = |_| sandbox.wrapper(["gcc", "-O3", "-c", "slow.c"]).stderr(Stdio::null()).spawn().unwrap();
    let mut children: Vec<Child> = (0..8).map(start).collect();
    let mut compilers = std::collections::BTreeSet::new();
    wait::until("all eight have ended", || {
        let at_work = processes::working_in(&sandbox.work());
        compilers.extend(at_work.into_iter().filter(|p| p.name == "cc1").map(|p| p.pid));
        children.iter_mut().all(|c| c.try_wait().unwrap().is_some()).then_some(())
    });
    assert!(children.iter_mut().all(|c| c.wait().unwrap().success()));
    assert_eq!(compilers.len(), 1, "compilers seen at work: {compilers:?}");
    let counters = sandbox.stats().counters;
    assert_eq!((counters.requests, counters.misses, counters.hits), (8, 1, 7));
}

#[test]
fn different_compiles_do_not_wait_for_each_other() {
    let sandbox = Sandbox::new();
    sandbox.start();
    sandbox.write("slow.c", sources::slow());
    sandbox.write("a.c", sources::SMALL);
    let mut slow = sandbox.wrapper(["gcc", "-O3", "-c", "slow.c"]).spawn().unwrap();
    wait::until("the slow one is at work", || {
        processes::working_in(&sandbox.work()).iter().any(|p| p.name == "cc1").then_some(())
    });
    sandbox.compile("gcc -c a.c").expect_success();
    assert!(slow.try_wait().unwrap().is_none(), "the small compile waited for the slow one");
    assert!(wait::for_exit(&mut slow, "the slow compile").success());
    assert_eq!(sandbox.stats().counters.misses, 2);
}

#[test]
fn those_who_wait_get_the_result_when_the_first_is_killed() {
    let sandbox = Sandbox::new();
    sandbox.start();
    sandbox.write("slow.c", sources::slow());
    let start = || sandbox.wrapper(["gcc", "-O3", "-c", "slow.c"]).spawn().unwrap();
    let mut first = start();
    wait::until("the first is at work", || {
        processes::working_in(&sandbox.work()).iter().any(|p| p.name == "cc1").then_some(())
    });
    let mut others = [start(), start()];
    wait::until("all have asked", || (sandbox.stats().counters.requests == 3).then_some(()));
    first.kill().unwrap();
    first.wait().unwrap();
    for child in &mut others {
        assert!(wait::for_exit(child, "a waiting compile").success());
    }
    assert!(sandbox.work().join("slow.o").exists());
}
