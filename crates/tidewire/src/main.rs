//! The `tidewire` binary: reads the command line, runs one command, tells what went wrong.
//!
//! It knows how a process starts and ends; what the commands do is in `commands` and `serve`.

mod admin;
mod auth;
mod banner;
mod cli;
mod commands;
mod config;
mod open_files;
mod pages;
mod serve;
mod sse;
mod telemetry;
mod tls;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use commands::Usage;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done if even standard error is gone.
            let _ = writeln!(std::io::stderr(), "tidewire: {error:#}");
            if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command.unwrap_or(Command::Serve(cli.flags)) {
        Command::Serve(flags) => {
            avoid_huge_pages();
            let loaded = config::load(&config::Sources::of_process(flags))?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve::run(loaded))
        }
        Command::Check(flags) => commands::check::run(flags),
        Command::Token(arguments) => commands::token::run(arguments),
        Command::Publish(arguments) => {
            client_runtime()?.block_on(commands::publish::run(arguments))
        }
        Command::Tail(arguments) => client_runtime()?.block_on(commands::tail::run(arguments)),
        Command::Health(arguments) => client_runtime()?.block_on(commands::health::run(arguments)),
        Command::ConfigReference => commands::check::print(&config::reference()),
    }
}

/// Huge pages cost some 700 bytes of resident memory a connection, because a page of 2 MiB is
/// resident as a whole, and gain nothing that could be measured. Where the kernel knows no such
/// switch there are none, or they stay.
fn avoid_huge_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// A client needs one connection, so one thread.
fn client_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
