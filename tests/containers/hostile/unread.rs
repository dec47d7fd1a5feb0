//! A job that says more than anybody takes: the log driver stands still, and nothing else does.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::socket::{setsockopt, shutdown, sockopt};
use oscr_sim::patience::LIMIT;
use oscr_sim::protocol::JobResult;

use super::identical::Case;
use crate::docker::{self, command};
use crate::world::World;

pub const CASES: [Case; 1] = [(
    "a_job_that_floods_a_log_which_nobody_reads_holds_up_nothing",
    a_job_that_floods_a_log_which_nobody_reads_holds_up_nothing,
)];

/// Ten times what fits anywhere on the way, by the worker's output, which becomes the listener's.
const FLOOD: &str = r#"
for process in /proc/[0-9]*; do
    if [ "$(cat "$process/comm" 2>/dev/null)" = Runner.Worker ]; then worker=${process#/proc/}; fi
done
yes "a word that nobody reads $(head -c 900 /dev/zero | tr '\0' x)" | head -c 50M >"/proc/$worker/fd/1"
echo "phase $(timeout 20 oscr-entry status --json | jq -r .phase)"
"#;

/// A server of logs that takes nothing, for as long as it lives.
struct Deaf {
    listener: TcpListener,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Deaf {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        // Those that are accepted have as much.
        setsockopt(&listener, sockopt::RcvBuf, &4096).expect("a socket");
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (own, kept) = (listener.try_clone().expect("a descriptor"), Arc::clone(&streams));
        thread::spawn(move || {
            own.incoming().map_while(Result::ok).for_each(|stream| kept.lock().expect("nobody panics").push(stream));
        });
        Self { listener, streams }
    }

    fn address(&self) -> String {
        format!("tcp://{}", self.listener.local_addr().expect("bound"))
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        // Docker removes no container whose log it waits to write.
        let _ = shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        for stream in self.streams.lock().expect("nobody panics").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn a_job_that_floods_a_log_which_nobody_reads_holds_up_nothing(world: &World) {
    let log = Deaf::start();
    let address = format!("syslog-address={}", log.address());
    let options = ["--log-driver", "syslog", "--log-opt", "mode=blocking", "--log-opt", &address];
    let container = world.docker_run(&options);
    world.forge.wait_runner(container.host(), 0);
    let job = world.forge.finished(world.forge.script_on(container.host(), "flood", FLOOD));
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("phase running"), "{}", job.log);
    // Docker calls no container ended before all that it said is written.
    drop(log);
    assert_eq!(container.wait_exit(LIMIT), 0);
    let kept = world.folder.path().join("metrics.json");
    let from = format!("{}:/var/lib/oscr/metrics.json", container.id);
    docker::run(command(&["cp", &from]).arg(&kept));
    let kept = std::fs::read_to_string(kept).expect("counts");
    let counts: serde_json::Value = serde_json::from_str(&kept).expect("JSON");
    assert!(counts["log_lines_lost"].as_u64().is_some_and(|lines| lines > 0), "{counts}");
}
