//! The filter program: which system calls the kernel asks us about. Everything else goes straight on.

use std::sync::OnceLock;

use super::interposer;
use super::syscalls::{self, Call, Meaning, When};

/// The architecture whose system-call numbers the table has, as the kernel tells it (`AUDIT_ARCH_*`,
/// linux/audit.h: the ELF machine, 64 bit, little-endian).
#[cfg(target_arch = "x86_64")]
pub const NATIVE: u32 = 0xc000_003e;
/// See above.
#[cfg(target_arch = "aarch64")]
pub const NATIVE: u32 = 0xc000_00b7;

/// From this number on, calls are those of another ABI (x32 on x86_64); none is that high elsewhere.
pub const FOREIGN_FROM: u32 = 0x4000_0000;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The argument that bears the first of the interposer's marks; the second is in the next.
const FIRST_MARK: usize = 4;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const IF_ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const GO: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Which of the calls in the table are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// Reads of descriptor 0 are.
    pub input_matters: bool,
    /// Readings of symbolic links are. Without them, neither are questions with `AT_EMPTY_PATH`, which then are
    /// taken to be about open files.
    pub links: bool,
    /// Readings of the clock, takings of random numbers and measurements are.
    pub chance: bool,
}

/// The program, made once for each scope. It finds a call's number by halving, since the kernel runs it for every
/// number there is when it is installed (to know which are always let go): comparing with one number after the other
/// takes 0.5 ms then.
pub fn program(scope: Scope) -> &'static [libc::sock_filter] {
    static MADE: [OnceLock<Vec<libc::sock_filter>>; 8] = [const { OnceLock::new() }; 8];
    let number =
        [scope.input_matters, scope.links, scope.chance].iter().fold(0, |n, &bit| 2 * n + usize::from(bit));
    MADE[number].get_or_init(|| make(scope))
}

fn make(scope: Scope) -> Vec<libc::sock_filter> {
    let notify = statement(RETURN, libc::SECCOMP_RET_USER_NOTIF);
    let mut asked: Vec<_> =
        syscalls::calls().filter_map(|call| Some((call.number as u32, full_answer(call, scope)?))).collect();
    asked.sort_unstable_by_key(|(number, _)| *number);
    let mut program = vec![
        statement(LOAD, ARCHITECTURE),
        jump(IF_EQUAL, NATIVE, 1, 0),
        notify,
        statement(LOAD, NUMBER),
        jump(IF_AT_LEAST, FOREIGN_FROM, 0, 1),
        notify,
    ];
    find(&asked, &mut program);
    program
}

/// What is said to a call once its number is found; none if it always goes on.
fn full_answer(call: &Call, scope: Scope) -> Option<Vec<libc::sock_filter>> {
    let answer = answer(call, scope)?;
    if !syscalls::MARKABLE.contains(&call.number) {
        return Some(answer);
    }
    let [first, second] = interposer::marks();
    let halves = [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32];
    let mut program = Vec::new();
    for (half, i) in halves.into_iter().zip(0_u8..) {
        let behind_these = 2 * (3 - i) + 1;
        program.push(statement(LOAD, low(FIRST_MARK) + 4 * u32::from(i)));
        program.push(jump(IF_EQUAL, half, 0, behind_these));
    }
    program.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    program.extend(answer);
    Some(program)
}

/// The same, of a call that bears no marks.
fn answer(call: &Call, scope: Scope) -> Option<Vec<libc::sock_filter>> {
    let notify = statement(RETURN, libc::SECCOMP_RET_USER_NOTIF);
    let allow = statement(RETURN, libc::SECCOMP_RET_ALLOW);
    Some(match call.when {
        When::Always => match call.meaning {
            Meaning::Readlink(_) if !scope.links => return None,
            Meaning::Stat(_, Some(flags)) if !scope.links => {
                let empty_path = libc::AT_EMPTY_PATH as u32;
                vec![statement(LOAD, low(flags)), jump(IF_ANY_BIT, empty_path, 1, 0), notify, allow]
            }
            _ => vec![notify],
        },
        When::InputIs(argument) if scope.input_matters => {
            // A descriptor is 32 bits wide; the kernel ignores the rest.
            vec![statement(LOAD, low(argument)), jump(IF_EQUAL, 0, 0, 1), notify, allow]
        }
        When::InputIs(_) => return None,
        When::Chance | When::ChanceNonZero(_) | When::ChanceIs(..) if !scope.chance => return None,
        When::Chance => vec![notify],
        When::ChanceIs(argument, number) => {
            vec![statement(LOAD, low(argument)), jump(IF_EQUAL, number, 0, 1), notify, allow]
        }
        When::NonZero(argument) | When::ChanceNonZero(argument) => vec![
            statement(LOAD, low(argument)),
            jump(IF_EQUAL, 0, 0, 2),
            statement(LOAD, low(argument) + 4),
            jump(IF_EQUAL, 0, 1, 0),
            notify,
            allow,
        ],
        When::AnyBit(argument, bits) => {
            vec![statement(LOAD, low(argument)), jump(IF_ANY_BIT, bits, 0, 1), notify, allow]
        }
    })
}

/// Appends the search for the loaded number among `asked`, which rise; every way through it ends in an answer.
fn find(asked: &[(u32, Vec<libc::sock_filter>)], program: &mut Vec<libc::sock_filter>) {
    if let [lower @ .., _, _] = asked
        && !lower.is_empty()
    {
        let (lower, upper) = asked.split_at(asked.len() / 2);
        let mut below = Vec::new();
        find(lower, &mut below);
        // A conditional jump goes 255 instructions far; a plain one, as far as there is need.
        program.push(jump(IF_AT_LEAST, upper[0].0, 0, 1));
        program.push(statement(GO, below.len() as u32));
        program.extend(below);
        return find(upper, program);
    }
    for (number, answer) in asked {
        program.push(jump(IF_EQUAL, *number, 0, answer.len() as u8));
        program.extend(answer);
    }
    program.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
}

/// Where the low half of an argument is (both architectures are little-endian).
fn low(argument: usize) -> u32 {
    ARGUMENTS + 8 * argument as u32
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// A jump over `jt` instructions if the condition holds, over `jf` if not.
fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says to a call: whether we are asked.
    fn asks(program: &[libc::sock_filter], architecture: u32, number: i64, arguments: [u64; 6]) -> bool {
        let mut data = Vec::new();
        data.extend((number as u32).to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend(0_u64.to_le_bytes());
        data.extend(arguments.iter().flat_map(|a| a.to_le_bytes()));
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            let holds = match u32::from(step.code) {
                LOAD => {
                    a = u32::from_le_bytes(data[step.k as usize..][..4].try_into().unwrap());
                    continue;
                }
                GO => {
                    at += step.k as usize;
                    continue;
                }
                RETURN => return step.k == libc::SECCOMP_RET_USER_NOTIF,
                IF_EQUAL => a == step.k,
                IF_AT_LEAST => a >= step.k,
                IF_ANY_BIT => a & step.k != 0,
                other => panic!("unknown code {other}"),
            };
            at += usize::from(if holds { step.jt } else { step.jf });
        }
    }

    #[test]
    fn every_number_is_found_and_no_other() {
        let listed: std::collections::HashMap<_, _> = syscalls::calls().map(|c| (c.number, c.when)).collect();
        let all = program(Scope { input_matters: true, links: true, chance: true });
        for number in 0..1000 {
            // Zero where it is looked for as descriptor, all bits where bits are looked for.
            let asked = match listed.get(&number) {
                None => asks(all, NATIVE, number, [0; 6]) || asks(all, NATIVE, number, [u64::MAX; 6]),
                Some(When::Always | When::InputIs(_)) => asks(all, NATIVE, number, [0; 6]),
                Some(When::ChanceIs(_, argument)) => asks(all, NATIVE, number, [u64::from(*argument); 6]),
                Some(_) => asks(all, NATIVE, number, [u64::MAX; 6]),
            };
            assert_eq!(asked, listed.contains_key(&number), "{number}");
        }
    }

    #[test]
    fn asks_about_what_is_in_the_table_alone() {
        let with = program(Scope { input_matters: true, links: true, chance: true });
        let without = program(Scope { input_matters: false, links: false, chance: false });
        let other = [5; 6];
        let [first, second] = interposer::marks();
        for program in [with, without] {
            assert!(!asks(program, NATIVE, libc::SYS_openat, [5, 5, 5, 5, first, second]));
            assert!(asks(program, NATIVE, libc::SYS_openat2, [5, 5, 5, 5, first, second]));
            assert!(asks(program, NATIVE, libc::SYS_execveat, [5, 5, 5, 5, first, second]));
            for bit in 0..64 {
                assert!(asks(program, NATIVE, libc::SYS_openat, [5, 5, 5, 5, first ^ 1 << bit, second]));
                assert!(asks(program, NATIVE, libc::SYS_openat, [5, 5, 5, 5, first, second ^ 1 << bit]));
            }
        }
        assert!(asks(with, NATIVE, libc::SYS_openat, other));
        assert!(!asks(with, NATIVE, libc::SYS_write, other));
        assert!(!asks(with, NATIVE, libc::SYS_read, other));
        assert!(asks(with, NATIVE, libc::SYS_read, [0; 6]));
        assert!(!asks(without, NATIVE, libc::SYS_read, [0; 6]));
        assert!(asks(with, NATIVE, libc::SYS_sendto, [0, 0, 0, 0, 1 << 32, 0]));
        assert!(asks(with, NATIVE, libc::SYS_sendto, [0, 0, 0, 0, 1, 0]));
        assert!(!asks(with, NATIVE, libc::SYS_sendto, [1, 1, 1, 1, 0, 1]));
        assert!(asks(with, NATIVE, libc::SYS_clone, [libc::CLONE_NEWNS as u64, 0, 0, 0, 0, 0]));
        assert!(!asks(with, NATIVE, libc::SYS_clone, [libc::CLONE_VM as u64, 0, 0, 0, 0, 0]));
        assert!(asks(with, NATIVE, libc::SYS_readlinkat, other));
        assert!(!asks(without, NATIVE, libc::SYS_readlinkat, other));
        let by_descriptor = [1, 2, 3, libc::AT_EMPTY_PATH as u64, 0, 0];
        assert!(asks(with, NATIVE, libc::SYS_newfstatat, by_descriptor));
        assert!(!asks(without, NATIVE, libc::SYS_newfstatat, by_descriptor));
        assert!(asks(without, NATIVE, libc::SYS_newfstatat, [0; 6]));
        assert!(asks(without, NATIVE, libc::SYS_statx, [0; 6]));
        assert!(asks(with, NATIVE, libc::SYS_clock_gettime, other));
        assert!(!asks(without, NATIVE, libc::SYS_clock_gettime, other));
        assert!(asks(with, NATIVE, libc::SYS_wait4, other) && !asks(with, NATIVE, libc::SYS_wait4, [0; 6]));
        assert!(asks(with, NATIVE ^ 1, libc::SYS_write, other));
        assert!(asks(with, NATIVE, i64::from(FOREIGN_FROM) + libc::SYS_write, other));
    }
}
