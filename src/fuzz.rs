//! Everything that reads bytes from others is thrown bytes at, here with a short turn of each reader, and by `make fuzz` with a
//! minute of each.
//!
//! A target is a test called `fuzz_…` beside the code that it is about, and a folder of inputs in `tests/corpus`. New inputs are
//! made from those by mutation. A target says how each input was taken (its kind of result, say); an input that was taken in a
//! new way is kept for the turn and mutated further, which finds its way into a format without instrumenting the program. What
//! makes a target fail is written into its folder, so that it is tried first from then on.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a turn takes without `FUZZ_SECONDS`, and how many inputs it tries at most.
const SHORT: Duration = Duration::from_millis(500);
const FEW: u64 = 3000;
/// The longest input.
const LONGEST: usize = 64 * 1024;
/// How many inputs that were taken in a new way are kept.
const KEPT: usize = 2000;
/// No input may take longer to read, even on a busy machine and unoptimised.
const TOO_LONG: Duration = Duration::from_secs(10);

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread throws bytes at something. What looks like a secret then is none, and the log need not remember it.
pub(crate) fn running() -> bool {
    RUNNING.get()
}

/// Gives `take` the inputs of a target, and ever more that are made from them.
pub(crate) fn run<R: Hash>(target: &str, mut take: impl FnMut(&[u8]) -> R) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("a folder of inputs").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut pool: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(!pool.is_empty(), "{} holds no inputs", folder.display());
    let seconds = std::env::var("FUZZ_SECONDS").ok().map(|text| text.parse().expect("FUZZ_SECONDS is a number"));
    let random = seconds.map(|_| getrandom::u64().unwrap()).unwrap_or(1);
    let seed = std::env::var("FUZZ_SEED").ok().map_or(random, |text| text.parse().expect("FUZZ_SEED is a number"));
    let mut dice = Dice(seed | 1);
    let words = words(&pool);
    let mut seen = HashSet::new();
    let mut try_one = |input: &[u8]| {
        let begun = Instant::now();
        RUNNING.set(true);
        let taken = catch_unwind(AssertUnwindSafe(|| take(input)));
        RUNNING.set(false);
        match taken {
            Ok(taken) if begun.elapsed() < TOO_LONG => {
                let mut hasher = DefaultHasher::new();
                taken.hash(&mut hasher);
                seen.insert(hasher.finish())
            }
            failed => {
                let mut hasher = DefaultHasher::new();
                input.hash(&mut hasher);
                let file = folder.join(format!("found-{:016x}", hasher.finish()));
                fs::write(&file, input).unwrap();
                eprintln!("{target}: this input is kept as {} (FUZZ_SEED={seed})", file.display());
                match failed {
                    Err(panic) => resume_unwind(panic),
                    Ok(_) => panic!("reading it took {:?}", begun.elapsed()),
                }
            }
        }
    };
    for input in &pool {
        try_one(input);
    }
    let until = Instant::now() + seconds.map_or(SHORT, Duration::from_secs);
    let given = pool.len();
    let mut tried = 0;
    while Instant::now() < until && (seconds.is_some() || tried < FEW) {
        let mut input = dice.of(&pool).clone();
        for _ in 0..=dice.below(6) {
            mutate(&mut input, &pool, &words, &mut dice);
        }
        input.truncate(LONGEST);
        tried += 1;
        if try_one(&input) && pool.len() < given + KEPT {
            pool.push(input);
        }
    }
    println!("{target}: {tried} inputs, taken in {} ways (FUZZ_SEED={seed})", seen.len());
}

/// The words of all inputs: the vocabulary of the format.
fn words(pool: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    let mut words: Vec<Vec<u8>> = pool
        .iter()
        .flat_map(|input| input.split(|byte| !word(byte)))
        .filter(|word| (2..=40).contains(&word.len()))
        .map(<[u8]>::to_vec)
        .collect();
    words.sort();
    words.dedup();
    words.extend(
        [
            "",
            "0",
            "-1",
            "18446744073709551615",
            "9223372036854775808",
            "1e999",
            "null",
            "\"",
            "\\u0000",
            "\\",
            "\u{1b}[31m",
            "é",
            "\u{202e}",
            "../",
            "\r\n",
            "{}",
            "[]",
        ]
        .map(|word| word.as_bytes().to_vec()),
    );
    words
}

fn mutate(input: &mut Vec<u8>, pool: &[Vec<u8>], words: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    let end = at + dice.below((input.len() - at).min(64) + 1);
    match dice.below(11) {
        0 if !input.is_empty() => {
            let at = at.min(input.len() - 1);
            input[at] ^= 1 << dice.below(8);
        }
        1 if !input.is_empty() => {
            let at = at.min(input.len() - 1);
            input[at] = dice.byte();
        }
        2 => {
            input.drain(at..end);
        }
        3 => input.truncate(at),
        4 => {
            let bytes: Vec<u8> = (0..=dice.below(8)).map(|_| dice.byte()).collect();
            input.splice(at..at, bytes);
        }
        // Part of it again, up to very often.
        5 => {
            let part = input[at..end].to_vec();
            let times = if dice.below(20) == 0 { 500 } else { 1 + dice.below(4) };
            input.splice(end..end, part.repeat(times));
        }
        // A word of the format, put in or in the place of something.
        6 | 7 => {
            let word = dice.of(words).clone();
            input.splice(at..at, word);
        }
        8 => {
            let word = dice.of(words).clone();
            input.splice(at..end, word);
        }
        // The beginning of one and the end of another.
        9 => {
            let other = dice.of(pool).clone();
            let from = dice.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let other = dice.of(pool).clone();
            let from = dice.below(other.len() + 1);
            let to = from + dice.below(other.len() - from + 1);
            input.splice(at..at, other[from..to].iter().copied());
        }
    }
}

/// Repeatable chance (xorshift64*).
pub(crate) struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Less than `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len())]
    }
}

/// A text's kind: without what is particular to one input, such as numbers and quoted words.
pub(crate) fn kind(text: &str) -> String {
    let mut quoted = false;
    let mut kind = String::new();
    for c in text.chars().take(200) {
        match c {
            '"' | '`' => quoted = !quoted,
            c if quoted || c.is_ascii_digit() => {}
            c => kind.push(c),
        }
    }
    kind
}

/// Fails for a text that could break a line of the log or a terminal.
#[track_caller]
pub(crate) fn assert_plain(text: &str) {
    assert!(!text.chars().any(crate::plain::disturbs), "{text:?}");
}
