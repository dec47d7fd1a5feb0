//! How images are built: from a clone without Rust, on a base that lacks something, and on ours.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use oscr_sim::registry::Registry;

use crate::docker::{self, command, docker, inspect};
use crate::image::Built;
use crate::world::{IMAGE, RUNNER, project_name, root};

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Copies the project as a clone has it: without what was built.
fn clone(to: &Path) {
    let made = ["target", "dist", ".git", ".tools"].map(|name| format!("--exclude=./{name}"));
    let script = "from=$1 to=$2; shift 2; tar -C \"$from\" \"$@\" -c . | tar -C \"$to\" -x";
    docker::run(Command::new("bash").args(["-euo", "pipefail", "-c", script, "-"]).arg(root()).arg(to).args(made));
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Both ways to an image, in the one line that a build without either ends with.
fn says_both_ways(said: &str, image: &str) {
    let line = said.lines().find(|line| line.contains("no oscr-entry for this image: dist/ has none"));
    let line = line.unwrap_or_else(|| panic!("it does not say what is missing: {said}"));
    for part in [&format!("{image} cannot be had: "), "`make build`", "--build-arg OSCR_ENTRY_IMAGE="] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
}

/// What the stage of the Dockerfile that gets oscr-entry calls, out of the image under test. The older builder looks at every file after each
/// step, and this has few.
const FEW: &str = r#"
for program in sh cat curl cut dpkg grep gzip install jq mktemp rm sed sha256sum tail tar tr; do
    path=$(command -v "$program") && echo "$path" && ldd "$path" | grep -o '/[^ ]*'
done | sort -u | while read -r path; do
    echo "$(readlink -f "$(dirname "$path")")/$(basename "$path")"
done >/tmp/few
tar --create --dereference --absolute-names --transform 's,^/,,' --files-from /tmp/few --file /tmp/few.tar
for link in /bin /lib /lib64; do
    if [ -L "$link" ]; then tar --append --directory / --file /tmp/few.tar "${link#/}"; fi
done
rm /tmp/few && tar --append --directory / --no-recursion --file /tmp/few.tar tmp && cat /tmp/few.tar
"#;

/// That stage alone, on an image.
fn entry_stage(image: &str) -> String {
    let dockerfile = read("images/runner/Dockerfile");
    let (_, stage) = dockerfile.split_once("\nFROM system AS entry\n").expect("the stage is there");
    let (stage, _) = stage.split_once("\n# ----").expect("another follows");
    format!("FROM {image}\n{stage}")
}

pub fn oscr_entry_comes_from_dist_or_from_a_registry_with_buildkit_and_without(test: &str) {
    let (few, built) = (Built(format!("{}-few", project_name(test))), Built(project_name(test)));
    let script = "docker run --rm --network none --entrypoint sh \"$0\" -ec \"$1\" | docker import - \"$2\"";
    docker::run(Command::new("bash").args(["-euo", "pipefail", "-c", script, IMAGE, FEW, &few.0]));
    let registry = Registry::start().expect("a registry");
    let program = fs::read(root().join("dist/oscr-entry")).expect("`make build` was here");
    registry.name("1", &registry.add_image("oscr-entry", &program).expect("an image in memory"));
    let image = format!("{}/oddessentials/oscr-entry:1", registry.host());
    let context = tempfile::tempdir().expect("a temporary folder can be made");
    clone(context.path());
    fs::write(context.path().join("Dockerfile"), entry_stage(&few.0)).expect("a file can be written");
    let build = |kit: &str, image: &str| {
        let mut build = command(&["build", "--network", "host", "--no-cache", "--tag", &built.0]);
        build.args(["--build-arg", &format!("OSCR_ENTRY_IMAGE={image}")]).arg(context.path());
        docker::output(build.env("DOCKER_BUILDKIT", kit))
    };
    // What the build says is what the program said when it was run there.
    let works = |output: &Output, of: &str| {
        let version = format!("oscr-entry {}, of {of}", env!("CARGO_PKG_VERSION"));
        assert!(output.status.success() && text(output).contains(&version), "{}", text(output));
    };
    for kit in ["1", "0"] {
        works(&build(kit, &image), &image);
        assert!(!registry.requests().is_empty(), "BuildKit {kit}: it came from the registry");
    }
    let dist = context.path().join("dist");
    fs::create_dir(&dist).expect("a folder can be made");
    fs::write(dist.join("oscr-entry"), &program).expect("a file can be written");
    for kit in ["1", "0"] {
        works(&build(kit, &image), "dist/");
        assert!(registry.requests().is_empty(), "BuildKit {kit}: there is one in dist/");
    }
}

pub fn docker_compose_build_in_a_clone_says_both_ways_where_there_is_no_release(_: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    clone(folder.path());
    let base = docker::run(&mut Command::new(root().join("scripts/base-image.sh")));
    // Nobody listens there.
    let image = "127.0.0.1:1/oddessentials/oscr-entry:1";
    let env =
        format!("CI_PROVIDER=github\nCOMPOSE_PROFILES=github\nBASE_IMAGE={}\nOSCR_ENTRY_IMAGE={image}\n", base.trim());
    fs::write(folder.path().join(".env"), env).expect("an .env can be written");
    let output = docker::output(command(&["compose", "build"]).current_dir(folder.path()));
    assert!(!output.status.success(), "{}", text(&output));
    says_both_ways(&text(&output), image);
}

/// apt of a base that has each package but those of $lacking, and of an image that has all that is installed already.
const APT: &str = r#"
mkdir /fake && PATH=/fake:$PATH
printf '#!/bin/sh\n' >/fake/apt-get
printf '#!/bin/sh\nfor package in %s; do case "$*" in *" $package") exit 100 ;; esac; done\necho Version: 2\n' "$lacking" >/fake/apt-cache
chmod 0755 /fake/*
"#;

pub fn a_base_that_lacks_a_promised_tool_ends_the_build_with_its_name(test: &str) {
    for (suffix, lacking, without, script, named) in [
        ("", "rsync wget", "rsync wget", "/opt/oscr/system.sh", "rsync, wget"),
        (
            "",
            "docker-buildx docker-compose docker-compose-v2",
            "",
            "OSCR_FULL=true /opt/oscr/extras.sh",
            "docker compose, docker buildx",
        ),
        ("-docker", "rootlesskit", "rootlesskit", "OSCR_DOCKER=engine /opt/oscr/extras.sh", "rootlesskit"),
    ] {
        let script = format!("lacking='{lacking}'\n{APT}\ncd /usr/bin && rm -f '' {without} && {script}");
        let (name, image) = (project_name(test), format!("{IMAGE}{suffix}"));
        let run = ["run", "--rm", "--name", &name, "--network", "none", "--entrypoint", "sh", &image, "-c", &script];
        let output = docker::output(&mut command(&run));
        assert!(!output.status.success(), "{lacking}: {}", text(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = said.lines().last().unwrap_or_default();
        let whole =
            format!(" has no package for what this image promises to jobs: {named}. Choose another BASE_IMAGE.");
        assert!(last.starts_with("the base image (") && last.ends_with(&whole), "{lacking}: {said}");
    }
}

/// What the page says of an image, by the first column of its table.
fn promised(image: &str) -> Vec<String> {
    let page = read("docs/images.md");
    let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {image} | ")));
    let row = row.unwrap_or_else(|| panic!("the page has no row for {image}"));
    row.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

pub fn jobs_find_what_the_page_promises_in_each_image(test: &str) {
    let default = promised("default");
    assert!(default.len() > 15, "{default:?}");
    let mut tried = 0;
    for suffix in ["", "-docker", "-sudo", "-full"] {
        let image = format!("{IMAGE}{suffix}");
        if !docker::output(&mut command(&["image", "inspect", &image])).status.success() {
            // `make test` builds all but this one.
            assert_eq!(suffix, "-full", "there is no {image}");
            continue;
        }
        let mut tools = default.clone();
        if !suffix.is_empty() {
            tools.extend(promised(&format!("`{suffix}`")));
        }
        let mut script = String::new();
        for tool in tools {
            script += &match tool.split_once(' ') {
                Some(_) => format!("{tool} version >/dev/null 2>&1 || echo '{tool}'\n"),
                None => format!("command -v '{tool}' >/dev/null || echo '{tool}'\n"),
            };
        }
        script += "for locale in C en_US; do [ \"$(LC_ALL=$locale.UTF-8 locale charmap 2>&1)\" = UTF-8 ] || echo $locale; done\n";
        // Podman without root must be able to enter it.
        script += "[ \"$(stat -c '%u %a' /)\" = '0 755' ] || stat -c 'the root is %u %a' /\n";
        let name = project_name(test);
        let run = ["run", "--rm", "--name", &name, "--network", "none", "--user", RUNNER, "--entrypoint", "sh"];
        let lacking = docker(&[&run[..], &[&image, "-c", &script]].concat());
        assert_eq!(lacking, "", "{image} lacks these");
        tried += 1;
    }
    assert!(tried >= 3, "{tried}");
}

pub fn the_pages_lines_build_an_image_on_ours(test: &str) {
    let page = read("docs/images.md");
    let (_, lines) = page.split_once("```dockerfile\n").expect("the page has a Dockerfile");
    let (lines, _) = lines.split_once("```").expect("it ends");
    assert_eq!(lines.lines().count(), 5, "{lines}");
    assert!(lines.contains("FROM oddessentials/oscr-github\n") && lines.ends_with("\"baseline\"]\n"), "{lines}");
    let built = Built(project_name(test));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let dockerfile = lines.replace("FROM oddessentials/oscr-github\n", &format!("FROM {IMAGE}\n"));
    fs::write(folder.path().join("Dockerfile"), dockerfile).expect("a file can be written");
    docker(&["build", "--tag", &built.0, folder.path().to_str().expect("a path is text")]);
    let script = "shellcheck --version | head -n 1; make --version | head -n 1 | cut -c 1-8; tail -n 1 /opt/oscr/home/.bashrc\n\
        grep -c ' usr/bin/shellcheck$' /opt/oscr/baseline; ls /var/lib/apt/lists";
    let run = ["run", "--rm", "--name", &built.0, "--network", "none", "--entrypoint", "sh", &built.0, "-c", script];
    assert_eq!(docker(&run), "ShellCheck - shell script analysis tool\nGNU Make\nset -o vi\n1\n");
    let config = inspect("image", &built.0);
    assert_eq!(config["Config"]["Entrypoint"], inspect("image", IMAGE)["Config"]["Entrypoint"]);
}
