//! The man pages: of the whole program, and of each of its commands.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use oscr::config::table::{COMMON, markdown};
use oscr::provider::FORGES;

use crate::markdown;

/// The page that has in words what the program's own page says besides its command line.
const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
/// The sections that are taken from there, each under the name that man pages have for it.
const SIGNALS: (&str, &str) = ("SIGNALS", "## Signals");
const EXIT_STATUS: (&str, &str) = ("EXIT STATUS", "## Exit codes");
const FILES: (&str, &str) = ("FILES", "## Places in the container");

/// A page: the name of its file, and its text.
pub struct Page {
    pub file: String,
    pub text: String,
}

/// All pages of a command and of those below it, its own first. `day` is the one that they are of.
pub fn pages(command: &Command, day: &str) -> Vec<Page> {
    let mut command = command.clone().disable_help_subcommand(true);
    // Gives those below their whole names.
    command.build();
    let whole = command.get_name().to_owned();
    let mut open = vec![command];
    let mut pages = Vec::new();
    while let Some(command) = open.pop() {
        pages.push(page(&command, &whole, day));
        open.extend(command.get_subcommands().cloned());
    }
    pages
}

/// What a command is called on its page.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn page(command: &Command, whole: &str, day: &str) -> Page {
    // As the command itself says it: with the `--` before what is somebody else's.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let version = format!("{whole} {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone().override_usage(usage)).title(name(command).to_uppercase());
    let man = man.date(day).source(version).manual("OSCR");
    let mut form = Roff::new();
    // A name that is hyphenated at the end of a line is another name.
    form.control("nh", []).control("ad", ["l"]);
    let mut text = Vec::new();
    let mut write = || {
        man.render_title(&mut text)?;
        form.to_writer(&mut text)?;
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut text)?;
        }
        let mut rest = Roff::new();
        let main = name(command) == whole;
        if main {
            add_sections(&mut rest);
        }
        see_also(&mut rest, command, (!main).then_some(whole));
        rest.to_writer(&mut text)
    };
    write().expect("memory takes all");
    Page { file: man.get_filename(), text: String::from_utf8(text).expect("it was made of text") }
}

/// What the program's own page has besides its command line.
fn add_sections(roff: &mut Roff) {
    add_section(roff, SIGNALS);
    add_section(roff, EXIT_STATUS);
    roff.control("SH", ["ENVIRONMENT"]);
    let forges = FORGES.0.iter().map(|forge| (format!("With CI_PROVIDER={}", forge.name), forge.settings));
    for (title, settings) in std::iter::once(("Every runner".to_owned(), COMMON)).chain(forges) {
        roff.control("SS", [title.as_str()]);
        markdown::add(roff, &markdown(settings));
    }
    add_section(roff, FILES);
}

fn add_section(roff: &mut Roff, (name, heading): (&str, &str)) {
    let section = markdown::section(CONFIGURATION, heading);
    roff.control("SH", [name]);
    markdown::add(roff, section.unwrap_or_else(|| panic!("docs/configuration.md has no «{heading}»")));
}

/// The other pages: of the commands below, and the one `above` it all.
fn see_also(roff: &mut Roff, command: &Command, above: Option<&str>) {
    let below = command.get_subcommands().map(name);
    let others: Vec<&str> = above.into_iter().chain(below).collect();
    roff.control("SH", ["SEE ALSO"]);
    for (at, other) in others.iter().enumerate() {
        let end = if at + 1 < others.len() { "(1)," } else { "(1)" };
        roff.text([bold(*other), roman(end)]);
    }
    if above.is_none() {
        roff.control("PP", []);
        roff.text([roman(format!("The project's pages: {}/tree/main/docs", env!("CARGO_PKG_REPOSITORY")))]);
    }
}
