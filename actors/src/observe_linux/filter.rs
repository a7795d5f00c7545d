//! The filter program: which system calls the kernel asks us about. Everything else goes straight on.

use super::syscalls::{self, Meaning, When};

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

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const IF_ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
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

/// The program.
pub fn program(scope: Scope) -> Vec<libc::sock_filter> {
    let notify = statement(RETURN, libc::SECCOMP_RET_USER_NOTIF);
    let allow = statement(RETURN, libc::SECCOMP_RET_ALLOW);
    let mut program = vec![
        statement(LOAD, ARCHITECTURE),
        jump(IF_EQUAL, NATIVE, 1, 0),
        notify,
        statement(LOAD, NUMBER),
        jump(IF_AT_LEAST, FOREIGN_FROM, 0, 1),
        notify,
    ];
    for call in syscalls::calls() {
        let body = match call.when {
            When::Always => match call.meaning {
                Meaning::Readlink(_) if !scope.links => continue,
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
            When::InputIs(_) => continue,
            When::Chance | When::ChanceNonZero(_) | When::ChanceIs(..) if !scope.chance => continue,
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
        };
        program.push(jump(IF_EQUAL, call.number as u32, 0, body.len() as u8));
        program.extend(body);
    }
    program.push(allow);
    program
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
    fn asks_about_what_is_in_the_table_alone() {
        let with = program(Scope { input_matters: true, links: true, chance: true });
        let without = program(Scope { input_matters: false, links: false, chance: false });
        let other = [5; 6];
        assert!(asks(&with, NATIVE, libc::SYS_openat, other));
        assert!(!asks(&with, NATIVE, libc::SYS_write, other));
        assert!(!asks(&with, NATIVE, libc::SYS_read, other));
        assert!(asks(&with, NATIVE, libc::SYS_read, [0; 6]));
        assert!(!asks(&without, NATIVE, libc::SYS_read, [0; 6]));
        assert!(asks(&with, NATIVE, libc::SYS_sendto, [0, 0, 0, 0, 1 << 32, 0]));
        assert!(asks(&with, NATIVE, libc::SYS_sendto, [0, 0, 0, 0, 1, 0]));
        assert!(!asks(&with, NATIVE, libc::SYS_sendto, [1, 1, 1, 1, 0, 1]));
        assert!(asks(&with, NATIVE, libc::SYS_clone, [libc::CLONE_NEWNS as u64, 0, 0, 0, 0, 0]));
        assert!(!asks(&with, NATIVE, libc::SYS_clone, [libc::CLONE_VM as u64, 0, 0, 0, 0, 0]));
        assert!(asks(&with, NATIVE, libc::SYS_readlinkat, other));
        assert!(!asks(&without, NATIVE, libc::SYS_readlinkat, other));
        let by_descriptor = [1, 2, 3, libc::AT_EMPTY_PATH as u64, 0, 0];
        assert!(asks(&with, NATIVE, libc::SYS_newfstatat, by_descriptor));
        assert!(!asks(&without, NATIVE, libc::SYS_newfstatat, by_descriptor));
        assert!(asks(&without, NATIVE, libc::SYS_newfstatat, [0; 6]));
        assert!(asks(&without, NATIVE, libc::SYS_statx, [0; 6]));
        assert!(asks(&with, NATIVE, libc::SYS_clock_gettime, other));
        assert!(!asks(&without, NATIVE, libc::SYS_clock_gettime, other));
        assert!(asks(&with, NATIVE, libc::SYS_wait4, other) && !asks(&with, NATIVE, libc::SYS_wait4, [0; 6]));
        assert!(asks(&with, NATIVE ^ 1, libc::SYS_write, other));
        assert!(asks(&with, NATIVE, i64::from(FOREIGN_FROM) + libc::SYS_write, other));
    }
}
