//! Runs a table of tests. The standard runner would start as many at once as there are processors, but these tests mostly
//! wait; and it could not say that a test was left out, or why.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// One test.
pub struct Test {
    pub name: String,
    pub run: Box<dyn Fn(&str) + Send>,
}

/// What the command line asks for, in the words of the standard runner, so that `cargo test` and nextest can call us.
struct Arguments {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    ignored: bool,
    threads: usize,
}

impl Arguments {
    fn read(threads: usize) -> Self {
        let mut read =
            Self { filters: Vec::new(), skip: Vec::new(), exact: false, list: false, ignored: false, threads };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let (option, attached) = match word.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option.to_owned(), Some(value.to_owned())),
                _ => (word, None),
            };
            let mut value = || attached.clone().or_else(|| words.next()).unwrap_or_default();
            match option.as_str() {
                "--exact" => read.exact = true,
                "--list" => read.list = true,
                "--ignored" => read.ignored = true,
                "--skip" => read.skip.push(value()),
                "--test-threads" => read.threads = value().parse().unwrap_or(threads).max(1),
                "--format" | "--color" | "--logfile" | "-Z" => drop(value()),
                other if other.starts_with('-') => {}
                _ => read.filters.push(option),
            }
        }
        read
    }

    fn wants(&self, name: &str) -> bool {
        let hits = |pattern: &String| {
            if self.exact { name == pattern } else { name.contains(pattern.as_str()) }
        };
        (self.filters.is_empty() || self.filters.iter().any(hits)) && !self.skip.iter().any(hits)
    }
}

/// Runs those of `tests` that the command line asks for, `threads` at a time; none of them, if there is a reason to `skip`.
pub fn run(mut tests: Vec<Test>, threads: usize, skip: Option<&str>) -> ExitCode {
    let arguments = Arguments::read(threads);
    tests.retain(|test| arguments.wants(&test.name));
    if arguments.ignored {
        // None is marked so.
        tests.clear();
    }
    if arguments.list {
        for test in &tests {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    let total = tests.len();
    if let Some(why) = skip.filter(|_| total > 0) {
        println!("\n{total} container tests are skipped: {why}\n");
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {total} tests, {} at a time", arguments.threads);
    let started = Instant::now();
    let queue = Mutex::new(VecDeque::from(tests));
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.threads.min(total) {
            scope.spawn(|| {
                let next = || lock(&queue).pop_front();
                while let Some(test) = next() {
                    if let Err(why) = run_one(&test) {
                        lock(&failed).push((test.name, why));
                    }
                }
            });
        }
    });
    let mut failed = lock(&failed);
    failed.sort();
    for (name, why) in &*failed {
        println!("\nFAILED {name}:\n{why}");
    }
    if !failed.is_empty() {
        // As the standard runner ends, for scripts/test-summary.sh.
        println!("\nfailures:");
        failed.iter().for_each(|(name, _)| println!("    {name}"));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; finished in {:.1}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        total - failed.len(),
        failed.len(),
        started.elapsed().as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

fn run_one(test: &Test) -> Result<(), String> {
    let started = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (test.run)(&test.name)));
    let seconds = started.elapsed().as_secs_f64();
    let word = if result.is_ok() { "ok" } else { "FAILED" };
    println!("test {} ... {word} ({seconds:.1} s)", test.name);
    result.map_err(|panic| text_of(panic.as_ref()))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
