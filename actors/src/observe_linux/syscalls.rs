//! Which system calls say something about the file system, and where in their arguments.
//!
//! A table, so that it can be read beside the kernel's own list. What is not in it either takes no path (its
//! descriptor was opened by a call that is) or cannot be of interest to a compile.

use std::sync::LazyLock;

/// Which directory a relative path starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The working directory.
    Cwd,
    /// The descriptor in this argument (or the working directory, if it is `AT_FDCWD`).
    Arg(usize),
}

/// Where a path is in the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathArg {
    /// What it is relative to.
    pub base: Base,
    /// The argument that points to it.
    pub path: usize,
}

/// Where the flags of an `open` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFlags {
    /// In this argument.
    Arg(usize),
    /// At the start of the structure that this argument points to (`openat2`).
    How(usize),
    /// `creat`: write, create and truncate.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only old architectures have it"))]
    Creat,
}

/// What a system call asks or does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Opens a path.
    Open(PathArg, OpenFlags),
    /// Asks about a path, following links unless this argument holds `AT_SYMLINK_NOFOLLOW`.
    Stat(PathArg, Option<usize>),
    /// Asks about a path, not following links.
    Lstat(PathArg),
    /// Reads a symbolic link.
    Readlink(PathArg),
    /// Executes a path; flags in this argument.
    Execute(PathArg, Option<usize>),
    /// Ends the process. One that is killed does not come to that.
    Exit,
    /// Lists the directory open as argument 0.
    List,
    /// Removes a name.
    Remove(PathArg),
    /// Makes a directory, a special file or a symbolic link.
    MakeOther(PathArg),
    /// Moves the first path to the second; flags in this argument.
    Rename(PathArg, PathArg, Option<usize>),
    /// Gives the first path's file a second name; flags in this argument.
    Link(PathArg, PathArg, Option<usize>),
    /// Changes a file's size, mode or owner by path.
    Change(PathArg),
    /// Changes the mode or owner of the file open as argument 0.
    ChangeOpen,
    /// Sets a file's times by path (by descriptor where that is null), to those that this argument points to: to now
    /// where that is null.
    SetTimes(PathArg, usize),
    /// Sets attributes of a file by path.
    Mark(PathArg),
    /// Sets attributes of the file open as argument 0.
    MarkOpen,
    /// Changes the working directory, to a path or to an open directory.
    Chdir(Option<PathArg>),
    /// Reads standard input, which this argument is (else it is not notified).
    ReadInput(usize),
    /// Copies the descriptor 0.
    CopyInput,
    /// `fcntl` of descriptor 0.
    FcntlInput,
    /// `mmap` of descriptor 0, unless it is anonymous.
    MapInput,
    /// Connects a socket to the address in argument 1.
    Connect,
    /// `sendmsg`: talks to somebody if the message bears an address.
    SendMessage,
    /// Talks to other processes.
    Talk,
    /// Sends a signal to the process in argument 0, or asks whether it is there.
    Signal,
    /// `unshare`: flags in argument 0.
    Unshare,
    /// Escapes observation.
    Escape(&'static str),
    /// One of the first calls that any program makes; of interest only as such.
    Start,
    /// Reads the clock, or measures.
    Clock,
    /// Takes random numbers, for the address in argument 0.
    Random,
    /// Asks how full the file system is that a path lies in.
    Measure(PathArg),
    /// Asks for a process's number, or its group's or session's.
    Identity,
}

/// When a call is notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// If standard input matters and this argument is 0.
    InputIs(usize),
    /// If this argument is not 0.
    NonZero(usize),
    /// If this argument has one of these bits (below 2^32).
    AnyBit(usize, u32),
    /// If chance matters.
    Chance,
    /// If chance matters and this argument is not 0.
    ChanceNonZero(usize),
    /// If chance matters and this argument is this number.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86_64 has such a call"))]
    ChanceIs(usize, u32),
}

/// One system call of interest.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Its number.
    pub number: libc::c_long,
    /// What it does.
    pub meaning: Meaning,
    /// When it is notified.
    pub when: When,
}

/// Every bit that makes a new namespace.
pub const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u32;

/// Sets where a thread's own variables are: what every libc and runtime begins with (asm/prctl.h).
#[cfg(target_arch = "x86_64")]
const ARCH_SET_FS: u32 = 0x1002;

/// Numbers that the `libc` crate does not have on all architectures; equal on all architectures.
mod new {
    pub const FCHMODAT2: libc::c_long = 452;
    pub const SETXATTRAT: libc::c_long = 463;
    pub const GETXATTRAT: libc::c_long = 464;
    pub const LISTXATTRAT: libc::c_long = 465;
    pub const REMOVEXATTRAT: libc::c_long = 466;
    pub const OPEN_TREE_ATTR: libc::c_long = 467;
    pub const FILE_GETATTR: libc::c_long = 468;
    pub const FILE_SETATTR: libc::c_long = 469;
}

const fn cwd(path: usize) -> PathArg {
    PathArg { base: Base::Cwd, path }
}

const fn at(directory: usize) -> PathArg {
    PathArg { base: Base::Arg(directory), path: directory + 1 }
}

const fn always(number: libc::c_long, meaning: Meaning) -> Call {
    Call { number, meaning, when: When::Always }
}

const fn input(number: libc::c_long, argument: usize) -> Call {
    Call { number, meaning: Meaning::ReadInput(argument), when: When::InputIs(argument) }
}

const fn chance(number: libc::c_long, meaning: Meaning) -> Call {
    Call { number, meaning, when: When::Chance }
}

use Meaning as M;
use libc as l;

/// The calls of all architectures, the most frequent first.
const COMMON: &[Call] = &[
    always(l::SYS_openat, M::Open(at(0), OpenFlags::Arg(2))),
    always(l::SYS_newfstatat, M::Stat(at(0), Some(3))),
    input(l::SYS_read, 0),
    Call { number: l::SYS_mmap, meaning: M::MapInput, when: When::InputIs(4) },
    always(l::SYS_statx, M::Stat(at(0), Some(2))),
    always(l::SYS_readlinkat, M::Readlink(at(0))),
    always(l::SYS_faccessat, M::Stat(at(0), None)),
    always(l::SYS_faccessat2, M::Stat(at(0), Some(3))),
    input(l::SYS_pread64, 0),
    input(l::SYS_readv, 0),
    Call { number: l::SYS_fcntl, meaning: M::FcntlInput, when: When::InputIs(0) },
    always(l::SYS_getdents64, M::List),
    always(l::SYS_openat2, M::Open(at(0), OpenFlags::How(2))),
    always(l::SYS_execve, M::Execute(cwd(0), None)),
    always(l::SYS_execveat, M::Execute(at(0), Some(4))),
    always(l::SYS_exit_group, M::Exit),
    always(l::SYS_chdir, M::Chdir(Some(cwd(0)))),
    always(l::SYS_fchdir, M::Chdir(None)),
    always(l::SYS_unlinkat, M::Remove(at(0))),
    always(l::SYS_renameat2, M::Rename(at(0), at(2), Some(4))),
    always(l::SYS_linkat, M::Link(at(0), at(2), Some(4))),
    always(l::SYS_symlinkat, M::MakeOther(at(1))),
    always(l::SYS_mkdirat, M::MakeOther(at(0))),
    always(l::SYS_mknodat, M::MakeOther(at(0))),
    always(l::SYS_truncate, M::Change(cwd(0))),
    always(l::SYS_fchmodat, M::Change(at(0))),
    always(new::FCHMODAT2, M::Change(at(0))),
    always(l::SYS_fchownat, M::Change(at(0))),
    always(l::SYS_utimensat, M::SetTimes(at(0), 2)),
    always(l::SYS_setxattr, M::Mark(cwd(0))),
    always(l::SYS_lsetxattr, M::Mark(cwd(0))),
    always(l::SYS_removexattr, M::Mark(cwd(0))),
    always(l::SYS_lremovexattr, M::Mark(cwd(0))),
    always(new::SETXATTRAT, M::Mark(at(0))),
    always(new::REMOVEXATTRAT, M::Mark(at(0))),
    always(new::FILE_SETATTR, M::Mark(at(0))),
    always(l::SYS_fchmod, M::ChangeOpen),
    always(l::SYS_fchown, M::ChangeOpen),
    always(l::SYS_fsetxattr, M::MarkOpen),
    always(l::SYS_fremovexattr, M::MarkOpen),
    always(l::SYS_getxattr, M::Stat(cwd(0), None)),
    always(l::SYS_lgetxattr, M::Lstat(cwd(0))),
    always(l::SYS_listxattr, M::Stat(cwd(0), None)),
    always(l::SYS_llistxattr, M::Lstat(cwd(0))),
    always(new::GETXATTRAT, M::Stat(at(0), Some(2))),
    always(new::LISTXATTRAT, M::Stat(at(0), Some(2))),
    always(new::FILE_GETATTR, M::Stat(at(0), Some(4))),
    always(l::SYS_statfs, M::Measure(cwd(0))),
    always(l::SYS_inotify_add_watch, M::Stat(cwd(1), None)),
    always(l::SYS_name_to_handle_at, M::Stat(at(0), None)),
    input(l::SYS_preadv, 0),
    input(l::SYS_preadv2, 0),
    input(l::SYS_sendfile, 1),
    input(l::SYS_splice, 0),
    input(l::SYS_tee, 0),
    input(l::SYS_copy_file_range, 0),
    input(l::SYS_recvfrom, 0),
    input(l::SYS_recvmsg, 0),
    Call { number: l::SYS_dup, meaning: M::CopyInput, when: When::InputIs(0) },
    Call { number: l::SYS_dup3, meaning: M::CopyInput, when: When::InputIs(0) },
    always(l::SYS_connect, M::Connect),
    always(l::SYS_bind, M::Talk),
    always(l::SYS_listen, M::Talk),
    Call { number: l::SYS_sendto, meaning: M::Talk, when: When::NonZero(4) },
    always(l::SYS_sendmsg, M::SendMessage),
    always(l::SYS_sendmmsg, M::Talk),
    always(l::SYS_shmget, M::Talk),
    always(l::SYS_msgget, M::Talk),
    always(l::SYS_semget, M::Talk),
    always(l::SYS_mq_open, M::Talk),
    always(l::SYS_io_uring_setup, M::Escape("io_uring")),
    always(l::SYS_chroot, M::Escape("chroot")),
    always(l::SYS_pivot_root, M::Escape("pivot_root")),
    always(l::SYS_mount, M::Escape("mount")),
    always(l::SYS_umount2, M::Escape("umount")),
    always(l::SYS_move_mount, M::Escape("move_mount")),
    always(l::SYS_open_tree, M::Escape("open_tree")),
    always(new::OPEN_TREE_ATTR, M::Escape("open_tree_attr")),
    always(l::SYS_mount_setattr, M::Escape("mount_setattr")),
    always(l::SYS_fsmount, M::Escape("fsmount")),
    always(l::SYS_setns, M::Escape("setns")),
    always(l::SYS_open_by_handle_at, M::Escape("open_by_handle_at")),
    always(l::SYS_fanotify_init, M::Escape("fanotify")),
    always(l::SYS_ptrace, M::Escape("ptrace")),
    always(l::SYS_pidfd_getfd, M::Escape("pidfd_getfd")),
    always(l::SYS_unshare, M::Unshare),
    Call { number: l::SYS_clone, meaning: M::Escape("namespaces"), when: When::AnyBit(0, NAMESPACES) },
    chance(l::SYS_set_tid_address, M::Start),
    chance(l::SYS_clock_gettime, M::Clock),
    chance(l::SYS_gettimeofday, M::Clock),
    chance(l::SYS_getrandom, M::Random),
    chance(l::SYS_getrusage, M::Clock),
    chance(l::SYS_getpid, M::Identity),
    chance(l::SYS_getppid, M::Identity),
    chance(l::SYS_gettid, M::Identity),
    chance(l::SYS_kill, M::Signal),
    chance(l::SYS_getpgid, M::Identity),
    chance(l::SYS_getsid, M::Identity),
    chance(l::SYS_times, M::Clock),
    chance(l::SYS_getitimer, M::Clock),
    chance(l::SYS_timer_gettime, M::Clock),
    chance(l::SYS_timerfd_gettime, M::Clock),
    chance(l::SYS_fstatfs, M::Clock),
    chance(l::SYS_sysinfo, M::Clock),
    chance(l::SYS_getcpu, M::Clock),
    chance(l::SYS_adjtimex, M::Clock),
    chance(l::SYS_clock_adjtime, M::Clock),
    Call { number: l::SYS_wait4, meaning: M::Clock, when: When::ChanceNonZero(3) },
    Call { number: l::SYS_waitid, meaning: M::Clock, when: When::ChanceNonZero(4) },
];

/// The calls that are not notified if they bear the interposer's marks, in the last two arguments, for which they have no use.
pub const MARKABLE: &[libc::c_long] =
    &[l::SYS_openat, l::SYS_newfstatat, l::SYS_readlinkat, l::SYS_faccessat];

/// The calls that only old architectures have.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[Call] = &[
    always(l::SYS_open, M::Open(cwd(0), OpenFlags::Arg(1))),
    always(l::SYS_stat, M::Stat(cwd(0), None)),
    always(l::SYS_lstat, M::Lstat(cwd(0))),
    always(l::SYS_access, M::Stat(cwd(0), None)),
    always(l::SYS_readlink, M::Readlink(cwd(0))),
    always(l::SYS_unlink, M::Remove(cwd(0))),
    always(l::SYS_rename, M::Rename(cwd(0), cwd(1), None)),
    always(l::SYS_creat, M::Open(cwd(0), OpenFlags::Creat)),
    always(l::SYS_rmdir, M::Remove(cwd(0))),
    always(l::SYS_mkdir, M::MakeOther(cwd(0))),
    always(l::SYS_link, M::Link(cwd(0), cwd(1), None)),
    always(l::SYS_symlink, M::MakeOther(cwd(1))),
    always(l::SYS_mknod, M::MakeOther(cwd(0))),
    always(l::SYS_chmod, M::Change(cwd(0))),
    always(l::SYS_chown, M::Change(cwd(0))),
    always(l::SYS_lchown, M::Change(cwd(0))),
    always(l::SYS_utime, M::SetTimes(cwd(0), 1)),
    always(l::SYS_utimes, M::SetTimes(cwd(0), 1)),
    always(l::SYS_futimesat, M::SetTimes(at(0), 2)),
    always(l::SYS_renameat, M::Rename(at(0), at(2), None)),
    always(l::SYS_getdents, M::List),
    always(l::SYS_uselib, M::Escape("uselib")),
    Call { number: l::SYS_dup2, meaning: M::CopyInput, when: When::InputIs(0) },
    Call { number: l::SYS_arch_prctl, meaning: M::Start, when: When::ChanceIs(0, ARCH_SET_FS) },
    chance(l::SYS_time, M::Clock),
    chance(l::SYS_getpgrp, M::Identity),
];

/// The calls that only old architectures have.
#[cfg(target_arch = "aarch64")]
const LEGACY: &[Call] = &[always(l::SYS_renameat, M::Rename(at(0), at(2), None))];

/// Every call of interest on this architecture.
pub fn calls() -> impl Iterator<Item = &'static Call> {
    COMMON.iter().chain(LEGACY)
}

static BY_NUMBER: LazyLock<Vec<Option<Meaning>>> = LazyLock::new(|| {
    let mut by_number = Vec::new();
    for call in calls() {
        let Ok(number) = usize::try_from(call.number) else { continue };
        by_number.resize(by_number.len().max(number + 1), None);
        by_number[number] = Some(call.meaning);
    }
    by_number
});

/// What the call of this number does, if it is in the table.
pub fn meaning_of(number: i32) -> Option<Meaning> {
    usize::try_from(number).ok().and_then(|n| BY_NUMBER.get(n).copied()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_listed_twice_and_each_can_be_looked_up() {
        let mut seen = std::collections::HashSet::new();
        for call in calls() {
            assert!(seen.insert(call.number), "{} twice", call.number);
            assert_eq!(meaning_of(call.number as i32), Some(call.meaning));
        }
        assert_eq!(meaning_of(-1), None);
        assert_eq!(meaning_of(100_000), None);
    }
}
