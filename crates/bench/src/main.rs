//! The `tidewire-bench` binary: measures a realtime server, this one or another, from outside.
//!
//! It reads the command line, runs one measurement and prints its outcome. Every measurement is
//! one thread and one event loop on raw non-blocking sockets, so that the generator costs little
//! beside what it measures. It never links the gateway: what is measured is another process.

mod cli;
mod clock;
mod connect;
mod crowd;
mod fanout;
mod frames;
mod inbound;
mod limit;
mod marker;
mod outcome;
mod pace;
mod phase;
mod process;
mod publisher;
mod replies;
mod resume;
mod scan;
mod senses;
mod subscriber;
mod summary;
mod target;
mod template;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done if even standard error is gone.
            let _ = writeln!(std::io::stderr(), "tidewire-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Connect(arguments) => {
            let outcome = connect::run(arguments)?;
            outcome::print(&arguments.print, "connect", &outcome)
        }
        Command::Fanout(arguments) => {
            let outcome = fanout::run(&arguments.load)?;
            outcome::print(&arguments.load.print, "fanout", &outcome)
        }
        Command::Cross(arguments) => {
            let outcome = fanout::run(&arguments.as_load())?;
            outcome::print(&arguments.print, "cross", &outcome)
        }
        Command::Avalanche(arguments) => {
            let outcome = resume::avalanche(arguments)?;
            outcome::print(&arguments.print, "avalanche", &outcome)
        }
        Command::Jitter(arguments) => {
            let outcome = resume::jitter(arguments)?;
            outcome::print(&arguments.print, "jitter", &outcome)
        }
        Command::Inbound(arguments) => {
            let outcome = inbound::run(arguments)?;
            outcome::print(&arguments.print, "inbound", &outcome)
        }
        Command::Limit(arguments) => limit::run(arguments),
        Command::Summary(arguments) => summary::run(arguments),
    }
}
