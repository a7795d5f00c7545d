//! `ToolPlanner`: finds the family a tool belongs to and lets it plan.
//!
//! A tool is known by the base name of what its path resolves to (`cc` → `gcc-12`), or, where that says nothing
//! (a script, another cache), by the name that was typed: what such a tool really is shows in the programs it
//! runs, which the observer sees.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use zccache_actors::sys::OsStrExt;

use zccache_actors::exec::Declaration;
use zccache_actors::invocation::Invocation;
use zccache_actors::plan::{Planned, Planner};
use zccache_actors::signature::Signature;
use zccache_actors::spelling;

use crate::any_tool;
use crate::c_family::language::base_name;
use crate::c_family::names::{Compiler, Named, compiler_named};
use crate::rust::names::{Driver, driver_named};
use crate::{c_family, rust};

/// Tools remembered at most. A machine has a few dozen; a client that makes up paths must not fill the memory.
const TOOLS_MAX: usize = 1024;

/// What every program of ours begins with (elf.h: `ELFMAG`).
const ELF_MAGIC: &[u8; 4] = b"\x7fELF";

/// The planner of all families of tools known.
#[derive(Debug, Default)]
pub struct ToolPlanner {
    /// What tools resolved to, by path.
    resolved: RwLock<HashMap<Vec<u8>, Arc<Resolved>>>,
    /// Rust's incremental compiles are run as others.
    strip_incremental: bool,
}

/// What a tool's path led to, once.
#[derive(Debug)]
pub struct Resolved {
    /// The signature of the file it led to then. Another one means that some link was turned, or the file replaced.
    signature: Signature,
    /// The compiler by that file's name.
    compiler: Option<Compiler>,
    /// The file's path without links.
    pub path: Vec<u8>,
    /// It is a program, no script.
    pub is_program: bool,
}

impl Planner for ToolPlanner {
    fn plan(&self, invocation: &Invocation) -> Planned {
        if let Some(driver) = driver(invocation) {
            return rust::plan::plan(invocation, driver, self.strips_incremental(invocation));
        }
        // Compilers also go by what they are called as: clang under the name of clang-cl is another tool.
        let is_called_so =
            invocation.argv.iter().next().is_some_and(|called| compiler_named(&program_of(called)).is_some());
        let tool = invocation.cwd_path().join(OsStr::from_bytes(&invocation.tool));
        let tool = tool.as_os_str().as_bytes();
        let mut planned = match self.compiler(tool).filter(|_| is_called_so) {
            Some(compiler) => c_family::plan::plan(invocation, compiler),
            None => any_tool::plan::plan(invocation, self.resolved(tool).as_deref()),
        };
        if let (Planned::Cache(plan), Some(declared)) =
            (&mut planned, Declaration::in_environment(&invocation.env))
        {
            plan.key_env.extend(declared.key_entries(&invocation.env));
            // It is said of the whole.
            plan.units.clear();
        }
        planned
    }
}

/// Rust's compiler that an invocation calls, if it calls one by its own name: rustup's stand-ins go by that as well.
fn driver(invocation: &Invocation) -> Option<Driver> {
    let called = invocation.argv.iter().next()?;
    driver_named(&program_of(&invocation.tool))
        .filter(|driver| driver_named(&program_of(called)) == Some(*driver))
}

/// A program's name, from its path.
fn program_of(path: &[u8]) -> Cow<'_, [u8]> {
    spelling::program(base_name(path))
}

impl ToolPlanner {
    /// A planner; `strip_incremental` is what holds for clients that do not say otherwise.
    pub fn new(strip_incremental: bool) -> Self {
        Self { strip_incremental, ..Self::default() }
    }

    /// Whether Rust's incremental compiles are to run as others: the client's own environment says so, or else ours.
    fn strips_incremental(&self, invocation: &Invocation) -> bool {
        match invocation.env.value_of(b"ZCCACHE_RUST_INCREMENTAL") {
            Some(b"strip") => true,
            Some(b"pass") => false,
            _ => self.strip_incremental,
        }
    }

    fn compiler(&self, tool: &[u8]) -> Option<Compiler> {
        let typed = compiler_named(&program_of(tool))?;
        self.resolved(tool).and_then(|resolved| resolved.compiler).or(match typed {
            Named::Compiler(compiler) => Some(compiler),
            // Nobody else's `cc` is common, and gcc's conventions are what such a compiler has to follow.
            Named::Either => Some(Compiler::Gcc),
        })
    }

    /// What `tool` leads to. One `stat` while that stays the same.
    fn resolved(&self, tool: &[u8]) -> Option<Arc<Resolved>> {
        let signature = Signature::of(tool).ok()?;
        let known = self.resolved.read().unwrap_or_else(PoisonError::into_inner).get(tool).cloned();
        if let Some(known) = known.filter(|known| known.signature == signature) {
            return Some(known);
        }
        let new = Arc::new(resolve(tool, signature)?);
        let mut resolved = self.resolved.write().unwrap_or_else(PoisonError::into_inner);
        if resolved.len() >= TOOLS_MAX {
            resolved.clear();
        }
        resolved.insert(tool.to_vec(), Arc::clone(&new));
        Some(new)
    }
}

fn resolve(tool: &[u8], signature: Signature) -> Option<Resolved> {
    let real = std::fs::canonicalize(Path::new(OsStr::from_bytes(tool))).ok()?;
    let path = real.as_os_str().as_bytes().to_vec();
    let compiler = match compiler_named(&program_of(&path)) {
        Some(Named::Compiler(compiler)) => Some(compiler),
        Some(Named::Either) | None => None,
    };
    let mut magic = [0; ELF_MAGIC.len()];
    let is_program = std::fs::File::open(&real).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *ELF_MAGIC;
    Some(Resolved { signature, compiler, path, is_program })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_what_it_leads_to_or_else_what_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        for real in ["gcc-12", "clang-14", "script", "x86_64-linux-gnu-g++-12"] {
            std::fs::write(dir.path().join(real), "").unwrap();
        }
        let planner = ToolPlanner::default();
        for (link, real, expect) in [
            ("cc", "gcc-12", Some(Compiler::Gcc)),
            ("c++", "x86_64-linux-gnu-g++-12", Some(Compiler::Gcc)),
            ("clang", "clang-14", Some(Compiler::Clang)),
            ("gcc", "clang-14", Some(Compiler::Clang)),
            ("cc", "clang-14", Some(Compiler::Clang)),
            ("cc", "script", Some(Compiler::Gcc)),
            ("clang++", "script", Some(Compiler::Clang)),
            ("my-tool", "gcc-12", None),
        ] {
            let path = dir.path().join(link);
            std::fs::remove_file(&path).ok();
            std::os::unix::fs::symlink(real, &path).unwrap();
            for _again in 0..2 {
                assert_eq!(planner.compiler(path.as_os_str().as_bytes()), expect, "{link} -> {real}");
            }
        }
        assert_eq!(planner.compiler(b"/nowhere/clang-14"), Some(Compiler::Clang));
    }

    #[test]
    fn so_many_tools_are_remembered_and_then_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("gcc"), "").unwrap();
        let planner = ToolPlanner::default();
        let known = || planner.resolved.read().unwrap().len();
        // The same one, spelled in many ways.
        let spelled = |n: usize| format!("{}{}gcc", dir.path().display(), "/".repeat(n + 1)).into_bytes();
        (0..TOOLS_MAX).for_each(|n| _ = planner.resolved(&spelled(n)).unwrap());
        assert_eq!(known(), TOOLS_MAX);
        planner.resolved(&spelled(TOOLS_MAX)).unwrap();
        assert_eq!(known(), 1);
    }
}
