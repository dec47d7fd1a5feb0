use super::*;
use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::unistd::{Gid, Uid};

/// A small image, built and with a container that has just begun its first life.
struct Image {
    root: tempfile::TempDir,
}

/// Who is not ourselves, whoever runs the tests.
fn agent() -> Identity {
    Identity { uid: Uid::from_raw(54321), gid: Gid::from_raw(54321), groups: vec![Gid::from_raw(54322)] }
}

impl Image {
    fn new() -> Self {
        let image = Self { root: tempfile::tempdir().unwrap() };
        fs::set_permissions(image.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for directory in ["usr/bin", "etc", "tmp", "opt/oscr/agent/bin", "opt/tools", "var/lib"] {
            fs::create_dir_all(image.at(directory)).unwrap();
        }
        for file in ["usr/bin/tool", "usr/bin/other", "etc/passwd", "opt/oscr/agent/bin/Listener", "opt/tools/x"] {
            fs::write(image.at(file), file).unwrap();
        }
        symlink("tool", image.at("usr/bin/link")).unwrap();
        fs::set_permissions(image.at("opt/tools"), fs::Permissions::from_mode(0o777)).unwrap();
        image
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn built(self) -> Self {
        assert!(write_baseline(self.root.path()).unwrap() > 10);
        self
    }

    fn custody(&self) -> Custody {
        let skips = [(self.at("tmp"), Skip::Content), (self.at("work"), Skip::All)];
        Custody::of(self.root.path(), &agent(), skips).unwrap()
    }

    /// A container's first life, up to its first job.
    fn first_life(&self) -> Custody {
        let mut custody = self.custody();
        assert!(custody.look().unwrap().is_none(), "there is nothing to compare with");
        custody.mark().unwrap();
        custody
    }
}

/// All that differs, without the root before it.
fn differences(custody: &mut Custody) -> Vec<String> {
    custody.look().unwrap().unwrap().changes
}

type Job = fn(&Image);

/// What a job with root's powers does, and what is found of it.
const TAINTS: &[(&str, Job, &str)] = &[
    ("a new file", |image| fs::write(image.at("etc/cron"), "").unwrap(), "/etc/cron (new)"),
    ("a new tree", |image| fs::create_dir_all(image.at("var/lib/a/b/c")).unwrap(), "/var/lib/a (new)"),
    (
        "content",
        |image| fs::write(image.at("usr/bin/tool"), "longer than it was before").unwrap(),
        "/usr/bin/tool (content)",
    ),
    ("a missing file", |image| fs::remove_file(image.at("usr/bin/other")).unwrap(), "/usr/bin/other (missing)"),
    ("a missing tree", |image| fs::remove_dir_all(image.at("opt/oscr/agent")).unwrap(), "/opt/oscr/agent (missing)"),
    (
        "a mode",
        |image| fs::set_permissions(image.at("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap(),
        "/usr/bin/tool (mode)",
    ),
    (
        "a link's target",
        |image| {
            fs::remove_file(image.at("usr/bin/link")).unwrap();
            symlink("evil", image.at("usr/bin/link")).unwrap();
        },
        "/usr/bin/link (content)",
    ),
    (
        "a link for a directory",
        |image| {
            fs::rename(image.at("usr/bin"), image.at("tmp/bin")).unwrap();
            symlink("../tmp/bin", image.at("usr/bin")).unwrap();
        },
        "/usr/bin (another kind of file)",
    ),
    (
        "the same size and time",
        |image| {
            let file = image.at("usr/bin/tool");
            let before = fs::metadata(&file).unwrap().modified().unwrap();
            let evil = "x".repeat(fs::read(&file).unwrap().len());
            fs::write(&file, evil).unwrap();
            File::options().write(true).open(&file).unwrap().set_modified(before).unwrap();
        },
        "/usr/bin/tool (content)",
    ),
    (
        "what was changed where the agent may write cannot be restored",
        |image| fs::write(image.at("opt/tools/x"), "evil").unwrap(),
        "/opt/tools/x (content)",
    ),
    (
        "the reference",
        |image| {
            let path = image.at("opt/oscr/container/reference");
            let mut text = fs::read(&path).unwrap();
            text.extend(b"f 644 0 0 0 0 - zzz\n");
            fs::write(path, text).unwrap();
        },
        "/opt/oscr/container/reference (content)",
    ),
];

#[test]
fn what_root_could_do_is_found() {
    for (name, job, expected) in TAINTS {
        let image = Image::new().built();
        let mut custody = image.first_life();
        assert_eq!(differences(&mut custody), [""; 0], "{name}: before");
        job(&image);
        let found = differences(&mut custody);
        assert!(found.iter().any(|found| found == expected), "{name}: {found:?}");
        assert!(found.len() <= 2, "{name}: {found:?}");
    }
}

#[test]
fn a_later_life_finds_what_an_earlier_one_had_no_time_to() {
    let image = Image::new().built();
    image.first_life();
    fs::write(image.at("etc/passwd"), "evil::0:0").unwrap();
    let mut custody = image.custody();
    assert_eq!(differences(&mut custody), ["/etc/passwd (content)"]);
    assert_eq!(custody.condemned(), None);
    custody.condemn("/etc/passwd").unwrap();
    assert_eq!(image.custody().condemned().as_deref(), Some("/etc/passwd"));
}

#[test]
fn an_image_without_baseline_is_taken_as_it_first_was() {
    let image = Image::new();
    let mut custody = image.first_life();
    assert_eq!(differences(&mut custody), [""; 0]);
    fs::write(image.at("usr/bin/other"), "usr/bin/evil!").unwrap();
    assert_eq!(differences(&mut custody), ["/usr/bin/other (changed)"]);
}

#[test]
fn what_later_build_steps_and_the_runtime_added_belongs_to_the_container() {
    let image = Image::new().built();
    fs::write(image.at(".dockerenv"), "").unwrap();
    fs::write(image.at("usr/bin/tool"), "another version").unwrap();
    fs::remove_file(image.at("usr/bin/other")).unwrap();
    let mut custody = image.first_life();
    assert_eq!(differences(&mut custody), [""; 0]);
    fs::remove_file(image.at(".dockerenv")).unwrap();
    assert_eq!(differences(&mut custody), ["/.dockerenv (missing)"]);
}

#[test]
fn what_the_runtime_writes_anew_at_each_start_is_compared_by_its_content() {
    let image = Image::new().built();
    let write = |text: &str| {
        fs::remove_file(image.at("etc/ld.so.cache")).ok();
        fs::write(image.at("etc/ld.so.cache"), text).unwrap();
    };
    write("libcuda");
    image.first_life();
    write("libcuda");
    assert_eq!(differences(&mut image.custody()), [""; 0]);
    write("libevil");
    assert_eq!(differences(&mut image.custody()), ["/etc/ld.so.cache (content)"]);
}

#[test]
fn what_appears_where_the_agent_can_write_is_a_leftover_and_goes() {
    let image = Image::new().built();
    let mut custody = image.first_life();
    fs::create_dir_all(image.at("opt/tools/node/bin")).unwrap();
    fs::write(image.at("opt/tools/node/bin/node"), "x").unwrap();
    symlink("/", image.at("opt/tools/root")).unwrap();
    let findings = custody.look().unwrap().unwrap();
    assert_eq!((findings.changed, findings.removed.entries), (0, 4));
    let mut left = fs::read_dir(image.at("opt/tools")).unwrap();
    assert_eq!(left.next().unwrap().unwrap().file_name(), "x");
    assert!(left.next().is_none());
}

#[test]
fn what_is_ours_or_wiped_is_not_looked_at() {
    let image = Image::new().built();
    let mut custody = image.first_life();
    fs::write(image.at("tmp/x"), "").unwrap();
    fs::create_dir(image.at("work")).unwrap();
    assert_eq!(differences(&mut custody), [""; 0]);
    fs::set_permissions(image.at("tmp"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(differences(&mut custody), ["/tmp (mode)"], "the place itself is");
}

#[test]
fn only_what_changed_since_the_last_look_is_read() {
    let image = Image::new().built();
    let mut custody = image.first_life();
    // As PID 1 does for each incarnation, which changes the ctime of all these files.
    fs::hard_link(image.at("opt/oscr/agent/bin/Listener"), image.at("tmp/Listener")).unwrap();
    let findings = custody.look().unwrap().unwrap();
    assert_eq!(findings.changed, 0, "{findings:?}");
    assert!(findings.read > 0, "{findings:?}");
    while written(&image.at("opt/oscr/agent/bin/Listener")).unwrap() >= custody.since.unwrap() {
        custody.mark().unwrap();
    }
    custody.mark().unwrap();
    assert_eq!(custody.look().unwrap().unwrap().read, 0);
}

#[test]
fn many_changes_are_counted_and_some_named() {
    let image = Image::new().built();
    let mut custody = image.first_life();
    for number in 0..50 {
        fs::write(image.at(&format!("etc/{number}")), "").unwrap();
    }
    let findings = custody.look().unwrap().unwrap();
    assert_eq!((findings.changed, findings.changes.len()), (50, DESCRIBED));
    assert!(findings.summary().ends_with(" and 30 more"), "{}", findings.summary());
}

#[test]
fn what_a_listing_left_out_is_neither_missing_nor_new() {
    let image = Image::new().built();
    let mut custody = image.first_life();
    // The reference was written from a listing without it; the next one has it.
    let reference = image.at("opt/oscr/container/reference");
    let lines = fs::read_to_string(&reference).unwrap();
    let (left_out, kept): (Vec<&str>, Vec<&str>) = lines.lines().partition(|line| line.ends_with(" usr/bin/other"));
    assert_eq!(left_out.len(), 1);
    fs::write(&reference, kept.join("\n") + "\n").unwrap();
    custody.reference = None;
    assert_eq!(differences(&mut custody), Vec::<String>::new());
    // The reference has it, and this look's listing does not.
    let mut findings = Findings::default();
    let record = Record::parse(left_out[0].as_bytes()).unwrap();
    custody.missing(record.clone(), &mut None, &mut findings);
    assert_eq!(findings.changes, Vec::<String>::new());
    // It is compared all the same.
    fs::write(image.at("usr/bin/other"), "something of another length").unwrap();
    custody.missing(record.clone(), &mut None, &mut findings);
    assert_eq!(findings.changes, ["/usr/bin/other (content)"]);
    fs::remove_file(image.at("usr/bin/other")).unwrap();
    custody.missing(record, &mut None, &mut findings);
    assert_eq!(findings.changes[1..], ["/usr/bin/other (missing)"]);
}

#[test]
fn a_tree_that_came_later_is_looked_at_like_the_rest_once_it_is_recorded() {
    let image = Image::new().built();
    let (half, place) = (image.at("work/agents/half"), image.at("work/agents/2.0"));
    let mut custody = image.first_life();
    fs::create_dir_all(half.join("bin")).unwrap();
    fs::write(half.join("bin/Listener"), "2.0").unwrap();
    assert!(!custody.watch(custody.of_tree(&half, "2.0")), "nobody has written down what it is like");
    custody.of_tree(&half, "2.0").establish().unwrap();
    fs::rename(&half, &place).unwrap();
    assert!(custody.watch(custody.of_tree(&place, "2.0")));
    assert_eq!(differences(&mut custody), Vec::<String>::new(), "it may be moved");
    custody.mark().unwrap();

    let modified = fs::metadata(place.join("bin/Listener")).unwrap().modified().unwrap();
    fs::write(place.join("bin/Listener"), "2.1").unwrap();
    File::options().write(true).open(place.join("bin/Listener")).unwrap().set_modified(modified).unwrap();
    fs::write(place.join("bin/more"), "").unwrap();
    let found = ["/work/agents/2.0/bin/Listener (content)", "/work/agents/2.0/bin/more (new)"];
    assert_eq!(differences(&mut custody), found);
    // A later life finds it too, and one that forgets the tree does not.
    let mut later = image.custody();
    assert!(later.watch(later.of_tree(&place, "2.0")));
    assert_eq!(differences(&mut later), found);
    fs::remove_dir_all(&place).unwrap();
    assert_eq!(differences(&mut later)[0], "/work/agents/2.0 (missing)");
    later.forget_trees(OsStr::new("2.0"));
    assert!(later.watch(later.of_tree(&place, "2.0")));
    later.forget_trees(OsStr::new("another"));
    assert!(!later.watch(later.of_tree(&place, "2.0")));
}
