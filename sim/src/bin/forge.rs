//! The simulated forge as a program, and the packer of the stand-in agents' archives.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Forge, Options, Orders};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A simulated GitHub and Azure DevOps for self-hosted runners and agents.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default)
    Serve(Serve),
    /// Pack a stand-in agent as a release archive and print its SHA-256
    PackAgent {
        /// Which agent
        #[arg(long, value_enum, default_value_t = Which::Github)]
        kind: Which,
        /// Folder with runner-listener and runner-worker; this program's own by default
        #[arg(long)]
        bin_dir: Option<PathBuf>,
        /// The archive to write
        #[arg(long, default_value = "actions-runner-sim.tar.gz")]
        out: PathBuf,
    },
    /// Lay a stand-in agent out in a folder
    InstallAgent {
        /// Which agent
        #[arg(long, value_enum, default_value_t = Which::Github)]
        kind: Which,
        /// Folder with runner-listener and runner-worker; this program's own by default
        #[arg(long)]
        bin_dir: Option<PathBuf>,
        /// The folder to make
        root: PathBuf,
    },
    /// Ask a forge whether it is up; exit code 0 or 1
    Health {
        /// Its address
        #[arg(default_value = "127.0.0.1:80")]
        address: SocketAddr,
    },
}

/// The official agents that there are stand-ins for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    Github,
    AzureDevops,
}

impl From<Which> for Kind {
    fn from(which: Which) -> Self {
        match which {
            Which::Github => Self::GitHub,
            Which::AzureDevops => Self::Azure,
        }
    }
}

#[derive(Args)]
struct Serve {
    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0:80")]
    listen: SocketAddr,
    /// A valid personal access token; repeatable
    #[arg(long = "pat", env = "FORGE_PAT", value_delimiter = ',', hide_env_values = true)]
    pats: Vec<String>,
    /// Orders in force from the start, as JSON (see POST /_sim/orders)
    #[arg(long, env = "FORGE_ORDERS")]
    orders: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(options) => serve(options),
        Command::PackAgent { kind, bin_dir, out } => programs(bin_dir)
            .and_then(|programs| oscr_sim::agent::pack(kind.into(), &programs, &out))
            .map(|sum| println!("{sum}  {}", out.display())),
        Command::InstallAgent { kind, bin_dir, root } => {
            programs(bin_dir).and_then(|programs| oscr_sim::agent::install(kind.into(), &programs, &root))
        }
        Command::Health { address } => std::net::TcpStream::connect(address).map(drop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forge: {error}");
            ExitCode::FAILURE
        }
    }
}

fn programs(given: Option<PathBuf>) -> std::io::Result<PathBuf> {
    given.map_or_else(oscr_sim::agent::programs_dir, Ok)
}

fn serve(serve: Serve) -> std::io::Result<()> {
    let mut orders: Orders = match &serve.orders {
        Some(text) => serde_json::from_str(text)?,
        None => Orders::default(),
    };
    orders.pats.extend(serve.pats);
    // Before anything else: as PID 1 a signal without a handler would be lost.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let forge = Forge::start(Options { listen: serve.listen, orders, echo: true })?;
    println!("forge listens on {}", forge.address());
    if let Some(signal) = signals.forever().next() {
        println!("forge ends on signal {signal}");
    }
    Ok(())
}
