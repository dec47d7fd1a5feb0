//! The official runner as a test: an image of ours lives through a table of scenarios against the simulated forge.
//!
//! Only Docker is needed. The forge is a container of the same image with this program in it, at port 80 of a network of the run's own,
//! because GitHub's runner drops any other port; what it is told and asked goes through `docker exec`. A scenario uses what any agent
//! meets: jobs, faults and answers of the forge, signals. Nothing of it is said to the stand-in alone, and no words are expected that only
//! the stand-in says.
//!
//! The benchmark of starts makes its forge and its runners by the same means.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

mod engine;
mod forge;
mod posture;
mod registry;
mod runner;
mod scenarios;
mod table;
mod world;

use crate::forge::{Forge, Options, Orders};
pub use engine::{Engine, docker};
pub use forge::Forge as Asked;
pub use posture::Posture;
pub use runner::Runner;
use scenarios::Scenario;
pub use world::{How, Site, World};

/// Let an image of OSCR's GitHub runner live through a table of scenarios against a simulated forge. Needs Docker alone.
#[derive(Parser)]
#[command(name = "official", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    table: Table,
}

#[derive(Subcommand)]
enum Command {
    /// Be the forge (in a container of the run)
    #[command(hide = true)]
    Forge,
    /// Be a registry of one image (likewise)
    #[command(hide = true)]
    Registry,
    /// Put questions on standard input to the forge (in its container)
    #[command(hide = true)]
    Ask,
    /// Name the scenarios
    List,
}

#[derive(Args)]
struct Table {
    /// The image, with whichever agent
    #[arg(long)]
    image: Option<String>,
    /// The image with Docker in it (OSCR_DOCKER=engine) for jobs that ask for containers; by default IMAGE-docker if it is here, else IMAGE
    #[arg(long)]
    docker_image: Option<String>,
    /// A scenario that this machine or this image cannot have; repeatable
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// This scenario alone; repeatable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How the runners' containers are held; repeatable; all postures by default
    #[arg(long, value_enum)]
    posture: Vec<Posture>,
    /// So many scenarios side by side: they mostly wait
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Forge) => serve().map(|()| true),
        Some(Command::Registry) => registry::serve().map(|()| true).map_err(|error| error.to_string()),
        Some(Command::Ask) => forge::ask().map(|()| true),
        Some(Command::List) => {
            scenarios::all().for_each(|scenario| println!("{:<16} {}", scenario.name, scenario.about));
            Ok(true)
        }
        None => run(&cli.table),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("official: {why}");
            ExitCode::from(2)
        }
    }
}

/// The forge of a container, until it is told to end.
fn serve() -> Result<(), String> {
    let served = || -> std::io::Result<()> {
        // As PID 1 a signal without a handler would be lost.
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let pats = std::env::var("FORGE_PAT").into_iter().collect();
        let listen = std::net::SocketAddr::from(([0, 0, 0, 0], 80));
        let _forge = Forge::start(Options { listen, orders: Orders { pats, ..Orders::default() }, echo: false })?;
        signals.forever().next();
        Ok(())
    };
    served().map_err(|error| error.to_string())
}

/// The scenarios that are asked for.
fn chosen(table: &Table) -> Result<Vec<&'static Scenario>, String> {
    for name in table.only.iter().chain(&table.without) {
        if !scenarios::all().any(|scenario| scenario.name == name) {
            let names: Vec<&str> = scenarios::all().map(|scenario| scenario.name).collect();
            return Err(format!("there is no scenario «{name}»; there are: {}", names.join(", ")));
        }
    }
    let asked = |scenario: &&Scenario| table.only.is_empty() || table.only.iter().any(|name| name == scenario.name);
    let left = |scenario: &&Scenario| !table.without.iter().any(|name| name == scenario.name);
    Ok(scenarios::all().filter(asked).filter(left).collect())
}

/// Runs the table; true if all of it is green.
fn run(table: &Table) -> Result<bool, String> {
    let image = table.image.as_deref().ok_or("--image IMAGE says what is to be tried")?;
    let scenarios = chosen(table)?;
    let engine = Engine::new()?;
    let is_here = |image: &str| docker(&["image", "inspect", "--format", "{{.Id}}", image]);
    let beside = format!("{image}-docker");
    let beside = if is_here(&beside).is_ok() { &beside } else { image };
    let with_docker = table.docker_image.as_deref().unwrap_or(beside);
    for image in [image, with_docker] {
        is_here(image).map_err(|why| format!("the image must be here, pulled or built: {why}"))?;
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?.display().to_string();
    let site = Arc::new(Site {
        network: format!("{}-net", engine.prefix),
        engine,
        image: image.to_owned(),
        with_docker: with_docker.to_owned(),
        agent: agent_of(image)?,
        program,
    });
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| error.to_string())?;
    let ours = Arc::clone(&site);
    // Ends with the program.
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("official: removing all that was made");
            if let Err(why) = ours.engine.remove_all() {
                eprintln!("official: {why}");
            }
            std::process::exit(128 + signal);
        }
    });
    let postures = if table.posture.is_empty() { &Posture::ALL[..] } else { &table.posture };
    let done = live(&site, &scenarios, postures, table);
    while site.engine.is_over() {
        // Whoever was told of the signal removes all, and ends the program.
        thread::park();
    }
    site.engine.remove_all()?;
    done
}

/// The version of the agent in an image of GitHub's runner.
pub fn agent_of(image: &str) -> Result<String, String> {
    let label = ["image", "inspect", "--format", "{{range .Config.Env}}{{println .}}{{end}}", image];
    if !docker(&label)?.lines().any(|variable| variable == "CI_PROVIDER=github") {
        return Err(format!("{image} is no image of OSCR's GitHub runner"));
    }
    let known = docker(&["run", "--rm", "--network", "none", "--entrypoint", "cat", image, "/opt/oscr/agent.json"])?;
    let known: serde_json::Value = serde_json::from_str(&known).map_err(|error| format!("{image}: {error}"))?;
    Ok(known["version"].as_str().unwrap_or_default().to_owned())
}

/// A line of the result. A reader who left is no reason to leave anything behind.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn live(site: &Site, scenarios: &[&'static Scenario], postures: &[Posture], table: &Table) -> Result<bool, String> {
    let without = if table.without.is_empty() { "nothing".to_owned() } else { table.without.join(", ") };
    say(&format!("{}, agent {}; left out: {without}", site.image, site.agent));
    site.engine.make(&["network", "create"], &[&site.network])?;
    Ok(table::run(site, table::cases(scenarios, postures), usize::from(table.at_once)))
}
