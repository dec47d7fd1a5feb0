//! Whether agents believe that they are in a container of Docker.

/// Agents refuse container jobs and services where PID 1 is, by its own word (`/proc/1/cgroup`), in a control group below `/docker/`:
/// they could not know what their paths are on the machine. A namespace of control groups that is the container's own hides it.
#[must_use]
pub(crate) fn in_group_of_docker(groups: &str) -> bool {
    groups.to_ascii_lowercase().contains(":/docker/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_agents_look_for_is_found() {
        let refused = ["12:pids:/docker/0123\n", "1:name=systemd:/\n0::/Docker/0123\n", "0::/docker/0123/docker/4567"];
        assert!(refused.into_iter().all(in_group_of_docker));
        // Agents do not look for what systemd, Kubernetes or a group by another name come to.
        let others = [
            "0::/\n",
            "0::/system.slice/docker-0123.scope",
            "11:pids:/kubepods/pod1/0123",
            "0::/oscr",
            "",
            "/docker/x",
        ];
        assert!(!others.into_iter().any(in_group_of_docker));
    }
}
