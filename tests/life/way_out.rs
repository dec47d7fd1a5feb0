//! A network that has no way out any more, as that of a container has which shares it with one that was started anew.

use std::fs::File;
use std::io::copy;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use nix::unistd::Pid;
use oscr_sim::agent::Kind;
use oscr_sim::protocol::JobResult;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::{Container, Forge, Gate, LIMIT, each, until, write_program};

const BOTH: [Kind; 2] = [Kind::GitHub, Kind::Azure];
/// What the log says when it leaves.
const LEAVES: &str = "network has no way out any more: leaving (75)";

/// Makes the forge's address one of another network, as long as it lives.
struct Relay {
    listener: TcpListener,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    /// For the network of the container with this PID 1.
    fn start(pid: Pid, forge: SocketAddr) -> Self {
        let (accepted, streams) = channel();
        // A thread of its own moves there; whoever connects to the forge stays here.
        let listener = std::thread::spawn(move || listen_in(pid, forge, accepted)).join().expect("a listener");
        let open = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&open);
        std::thread::spawn(move || {
            for inside in streams {
                let Ok(outside) = TcpStream::connect(forge) else { continue };
                let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                all.lock().expect("nobody panics").extend([clone(&inside), clone(&outside)]);
                for (mut from, mut to) in [(clone(&inside), clone(&outside)), (outside, inside)] {
                    std::thread::spawn(move || {
                        let _ = copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Self { listener, streams: open }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It refuses connections from now on, and its thread ends.
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        for stream in self.streams.lock().expect("nobody panics").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Listens in the network of this process, and hands on what comes.
fn listen_in(pid: Pid, address: SocketAddr, accepted: Sender<TcpStream>) -> TcpListener {
    let network = File::open(format!("/proc/{pid}/ns/net")).expect("its network");
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("we are root");
    let listener = TcpListener::bind(address).expect("nobody else listens there");
    let own = listener.try_clone().expect("a descriptor");
    std::thread::spawn(move || own.incoming().map_while(Result::ok).try_for_each(|stream| accepted.send(stream)));
    listener
}

/// A container in a network of its own, with a way out that leads nowhere. It begins once its gate is opened.
fn in_a_network_of_its_own(kind: Kind, forge: &Forge) -> (Container<'_>, Gate) {
    let mut container = match kind {
        Kind::GitHub => Container::new(forge),
        Kind::Azure => Container::azure(forge),
    };
    let gate = container.gate();
    let wrapper = container.path("in-a-network");
    let (binary, gate_file) = (container.text("usr/local/bin/oscr-entry"), container.text("gate"));
    let inside = format!(
        "ip link set lo up; ip link add way type veth peer name out; ip address add 10.77.0.1/24 dev way; \
         ip link set way up; ip link set out up; ip route add default via 10.77.0.2; echo in its network; \
         read -r _ <\"{gate_file}\"; exec \"{binary}\""
    );
    write_program(&wrapper, &format!("#!/bin/sh\nexec unshare --net sh -ec '{inside}'\n"));
    container.in_namespace(&format!("entry='{}'", wrapper.display()));
    // A request that fails is worth half of it, in place of five minutes.
    container.set("OSCR_WATCH_INTERVAL", "1");
    (container, gate)
}

/// Takes the way out of a container's network away, as a daemon's restart does.
fn lose_the_way_out(pid: Pid) {
    let network = format!("--net=/proc/{pid}/ns/net");
    let status = Command::new("nsenter").args([&network, "ip", "link", "delete", "way"]).status();
    assert!(status.expect("nsenter of util-linux").success());
}

#[test]
fn an_idle_runner_whose_network_has_no_way_out_leaves_and_is_back_after_a_restart() {
    each(&BOTH, |kind| {
        let forge = Forge::start();
        let (mut container, mut gate) = in_a_network_of_its_own(*kind, &forge);
        container.start();
        container.wait_line("in its network");
        let pid = container.pid();
        let relay = Relay::start(pid, forge.address());
        gate.open();
        forge.listening();
        drop(relay);
        // While there is a way out, it is somebody else's trouble.
        let failed = "the forge cannot be asked about the registration";
        until("it asks in vain", || container.lines_with(failed).len() >= 3);
        assert!(container.lines_with(LEAVES).is_empty());
        lose_the_way_out(pid);
        container.wait_line(LEAVES);
        assert_eq!(container.exit_code(), 75);
        assert!(container.state()["left_for_network"].is_u64(), "{}", container.state());

        container.restart();
        container.wait_line("in its network");
        let pid = container.pid();
        let relay = Relay::start(pid, forge.address());
        gate.open();
        forge.listening();
        drop(relay);
        lose_the_way_out(pid);
        // Once in half an hour.
        container.wait_line("has left for that a short while ago");
        let _relay = Relay::start(pid, forge.address());
        assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
        assert_eq!(container.exit_code(), 0);
        assert!(container.lines_with(LEAVES).is_empty());
    });
}

#[test]
fn a_runner_that_cannot_register_without_a_way_out_leaves_too() {
    each(&BOTH, |kind| {
        let forge = Forge::start();
        let (mut container, mut gate) = in_a_network_of_its_own(*kind, &forge);
        container.start();
        container.wait_line("in its network");
        gate.open();
        container.wait_line("trying again in");
        lose_the_way_out(container.pid());
        container.wait_line(LEAVES);
        assert_eq!(container.exit_code(), 75);
        container.assert_state_empty();
    });
}
