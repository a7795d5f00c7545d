//! `zccache-client`: the commands for people. What they do is told in `zccache_client::cli`.

fn main() -> std::process::ExitCode {
    zccache_client::cli::main()
}
