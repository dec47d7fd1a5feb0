//! Job control, with a terminal and without one.

use std::fs;
use std::process::{Command, Stdio};

use crate::harness::cases;
use crate::inits::Init;
use crate::world::{Place, Running, World, content_of, scratch, state, until, words};

cases![
    without_a_terminal_the_child_leads_a_session,
    with_a_terminal_the_child_has_the_foreground,
    ctrl_c_reaches_the_child_once,
    a_new_window_size_reaches_the_child,
    a_hang_up_reaches_the_child,
    bash_below_it_has_job_control,
    ctrl_z_and_fg_work_in_the_shell_above,
    ctrl_z_without_a_shell_above_stops_nothing_for_good,
    started_in_the_background_it_leaves_the_terminal_alone,
    stopped_in_the_background_it_gets_the_terminal_by_fg,
    running_in_the_background_it_gets_the_terminal_by_fg,
    the_terminal_is_given_back,
    stop_signals_stop_the_child_and_sigcont_continues_it,
    it_stops_with_its_child,
];

/// Group, session and foreground group of a process, as `/proc/<pid>/stat` has them.
struct Standing {
    pid: i32,
    group: i32,
    session: i32,
    foreground: i32,
}

fn standing(stat: &str) -> Standing {
    let (head, tail) = stat.rsplit_once(')').unwrap();
    let pid = head.split_once(' ').unwrap().0.trim().parse().unwrap();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |at: usize| fields[at].parse().unwrap();
    Standing { pid, group: number(2), session: number(3), foreground: number(5) }
}

const STAT: [&str; 2] = ["cat", "/proc/self/stat"];

fn without_a_terminal_the_child_leads_a_session(init: &Init) {
    let child = standing(&World::new(init, STAT).finish().out);
    assert_eq!((child.group, child.session), (child.pid, child.pid));
}

fn with_a_terminal_the_child_has_the_foreground(init: &Init) {
    let child = standing(&World::new(init, STAT).on_terminal().finish().out);
    assert_eq!((child.group, child.foreground), (child.pid, child.pid));
}

fn ctrl_c_reaches_the_child_once(init: &Init) {
    let mut running = World::helper(init, &["signals", "main"]).on_terminal().start();
    running.expect("main ready");
    running.write("\x03");
    running.expect("main got 2\r\n");
    running.signal(12);
    let between = running.expect("main got 12");
    assert!(!between.contains("got 2\r\n"), "{between}");
}

fn a_new_window_size_reaches_the_child(init: &Init) {
    let mut running = World::helper(init, &["signals", "main"]).on_terminal().start();
    running.expect("main ready");
    let resized =
        Command::new("stty").args(["cols", "99"]).stdin(Stdio::from(running.terminal().try_clone().unwrap())).status();
    assert!(resized.unwrap().success());
    running.expect("main got 28");
}

fn a_hang_up_reaches_the_child(init: &Init) {
    let (_directory, path) = scratch();
    let file = path.join("log");
    let mut running = World::helper(init, &["signals", "main", &file.to_string_lossy()]).on_terminal().start();
    content_of(&file);
    running.hang_up();
    until("SIGHUP arrived", || content_of(&file).contains("main got 1\n"));
}

const BASH: [&str; 5] = ["bash", "--norc", "--noprofile", "--noediting", "-i"];

/// What bash says when it waits for a command.
const PROMPT: &str = "@@ ";

/// Makes a shell quiet, so that what is typed is not taken for what is answered.
fn settle(shell: &mut Running) -> String {
    shell.write("stty -echo; PS1='@''@ '\n");
    shell.expect(PROMPT)
}

/// Ctrl-C. Bash throws away what is typed before it has taken notice.
fn interrupt(shell: &mut Running) {
    shell.write("\x03");
    shell.expect(PROMPT);
}

/// Ctrl-Z.
fn suspend(shell: &mut Running) {
    shell.write("\x1a");
    shell.expect("Stopped");
    shell.expect(PROMPT);
}

/// An interactive bash in which the init is to be started.
fn shell_above() -> Running {
    let mut shell = Running::start(words(BASH), Place::Below, true);
    settle(&mut shell);
    shell
}

/// The init over a script, as one types it.
fn typed(init: &Init, script: &str) -> String {
    let line = World::script(init, script).line();
    let quoted: Vec<String> = line.iter().map(|word| format!("'{}'", word.display())).collect();
    quoted.join(" ")
}

/// Answers each line, which shows that it has the terminal.
const ECHO: &str = "echo go; while read -r x; do echo line=$x; done";

fn answers(shell: &mut Running, line: &str) {
    shell.write(&format!("{line}\n"));
    shell.expect(&format!("line={line}"));
}

/// Twice Ctrl-Z and `fg`, then Ctrl-C, with a job that echoes. `stopped` looks at the job after Ctrl-Z.
fn suspend_and_interrupt(bash: &mut Running, stopped: impl Fn(&Running)) {
    bash.expect("go");
    for line in ["hello", "again"] {
        suspend(bash);
        stopped(bash);
        bash.write("fg\n");
        answers(bash, line);
    }
    interrupt(bash);
    bash.write("echo code=$?\n");
    bash.expect("code=130");
}

fn bash_below_it_has_job_control(init: &Init) {
    let mut bash = World::new(init, BASH).on_terminal().start();
    let greeting = settle(&mut bash);
    assert!(!greeting.contains("no job control"), "{greeting}");
    bash.write(&format!("sh -c '{ECHO}'\n"));
    suspend_and_interrupt(&mut bash, |_| {});
    bash.write("exit 7\n");
    assert_eq!(bash.finish().code, 7);
}

fn ctrl_z_and_fg_work_in_the_shell_above(init: &Init) {
    let mut bash = shell_above();
    for _ in 0..2 {
        bash.write(&format!("{}\n", typed(init, ECHO)));
        suspend_and_interrupt(&mut bash, |bash| {
            let main = bash.main();
            until("the child is stopped", || state(main) == 'T');
        });
    }
}

fn ctrl_z_without_a_shell_above_stops_nothing_for_good(init: &Init) {
    let mut running = World::script(init, ECHO).on_terminal().start();
    running.expect("go");
    running.write("\x1a");
    answers(&mut running, "hello");
}

fn started_in_the_background_it_leaves_the_terminal_alone(init: &Init) {
    let mut bash = shell_above();
    bash.write(&format!("{} &\n", typed(init, "echo go; exec sleep 1000")));
    bash.expect("go");
    bash.write("read -r x; echo line=$x; cat /proc/self/stat\n");
    bash.write("hello\n");
    bash.expect("line=hello\r\n");
    let cat = standing(&bash.expect("\n"));
    assert_eq!(cat.foreground, cat.group);
}

fn stopped_in_the_background_it_gets_the_terminal_by_fg(init: &Init) {
    let mut bash = shell_above();
    let script = "echo go; read -r x; echo line=$x; exit 3";
    bash.write(&format!("{} &\n", typed(init, script)));
    bash.expect("go");
    let init = bash.init();
    until("it waits for the terminal", || state(init) == 'T');
    read_in_the_foreground(&mut bash, || {});
}

fn running_in_the_background_it_gets_the_terminal_by_fg(init: &Init) {
    let (_directory, path) = scratch();
    let file = path.join("now");
    let script =
        format!("echo go; until [ -e {} ]; do sleep 0.01; done; read -r x; echo line=$x; exit 3", file.display());
    let mut bash = shell_above();
    bash.write(&format!("{} &\n", typed(init, &script)));
    bash.expect("go");
    read_in_the_foreground(&mut bash, || fs::write(&file, "").unwrap());
}

fn read_in_the_foreground(bash: &mut Running, once_there: impl FnOnce()) {
    bash.write("fg\n");
    bash.expect("exit 3");
    bash.expect("\n");
    once_there();
    bash.write("hello\n");
    bash.expect("line=hello");
    bash.write("echo code=$?\n");
    bash.expect("code=3");
}

fn the_terminal_is_given_back(init: &Init) {
    let script = format!("{}; echo code=$?; read -r x; echo line=$x", typed(init, "exit 3"));
    let mut shell = Running::start(words(["sh", "-c", &script]), Place::Below, true);
    shell.expect("code=3");
    shell.write("hello\n");
    shell.expect("line=hello");
}

fn stopped(init: &Init, number: i32) -> Running {
    let mut running = World::script(init, "echo ready; exec sleep 1000").below().start();
    running.expect("ready");
    let main = running.main();
    running.signal(number);
    until("the child is stopped", || state(main) == 'T');
    running
}

const STOPS: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

fn stop_signals_stop_the_child_and_sigcont_continues_it(init: &Init) {
    for number in STOPS {
        let running = stopped(init, number);
        let (first, main) = (running.init(), running.main());
        running.signal(libc::SIGCONT);
        until("both run again", || state(first) != 'T' && state(main) != 'T');
    }
}

fn it_stops_with_its_child(init: &Init) {
    for number in STOPS {
        let running = stopped(init, number);
        let first = running.init();
        until("the init is stopped", || state(first) == 'T');
    }
}
