//! `zccache-client exec`: runs any tool through the cache, with what the user declares about it.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Context;

use super::{Outcome, program};

/// What is declared, and the tool with its arguments.
#[derive(clap::Args)]
pub struct Exec {
    /// A file that is an input, whether the tool is seen to read it or not (may be repeated)
    #[arg(long, value_name = "FILE")]
    input: Vec<OsString>,
    /// A variable whose value is an input (may be repeated)
    #[arg(long, value_name = "NAME")]
    input_env: Vec<OsString>,
    /// A file that is an output, whether the tool is seen to write it or not (may be repeated)
    #[arg(long, value_name = "FILE")]
    output: Vec<OsString>,
    /// The result does not hang on the name of the working directory
    #[arg(long)]
    no_cwd: bool,
    /// The tool and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the wrapper, which becomes the tool if the cache is of no use.
pub fn exec(run: Exec) -> Outcome {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = Command::new(own.with_file_name(program::WRAPPER_NAME));
    command.args(&run.command);
    let lists = [("INPUT", &run.input), ("VARIABLE", &run.input_env), ("OUTPUT", &run.output)];
    for (kind, values) in lists {
        for (number, value) in values.iter().enumerate() {
            command.env(format!("ZCCACHE_EXEC_{kind}_{number}"), value);
        }
    }
    if run.no_cwd {
        command.env("ZCCACHE_EXEC_NO_CWD", "1");
    }
    match program::end_as(&mut command).context("cannot run zccache")? {}
}
