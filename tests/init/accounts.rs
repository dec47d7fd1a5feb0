//! Users and groups, where there is nothing but two files, or not even these.

use std::fs;

use crate::harness::cases;
use crate::inits::Init;
use crate::places::bare_root;
use crate::world::{Finished, World};

cases![a_user_s_name_brings_all_of_its_groups, a_numeric_user_needs_no_files, an_unknown_user_is_one_clear_line,];

fn as_user(init: &Init, user: &str, files: bool) -> Finished {
    let world = World::new(init, ["/helper", crate::helper::FLAG, "state"])
        .with(|options| options.user = Some(user.to_owned()));
    // Asked first, so that one without the option is told apart from one that fails.
    world.line();
    let (_directory, root) = bare_root(init);
    if files {
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/\nrunner:x:1001:1001::/:/\n").unwrap();
        fs::write(root.join("etc/group"), "runner:x:1001:\ndialout:x:20:other,runner\nplugdev:x:46:runner\n").unwrap();
    }
    world.at("/init").after(["chroot".as_ref(), root.as_os_str()]).finish()
}

fn a_user_s_name_brings_all_of_its_groups(init: &Init) {
    let finished = as_user(init, "runner", true);
    assert!(finished.out.contains("uid=1001 gid=1001 groups=[20, 46, 1001]"), "{finished:?}");
    let finished = as_user(init, "runner:dialout", true);
    assert!(finished.out.contains("uid=1001 gid=20 groups=[20]"), "{finished:?}");
}

fn a_numeric_user_needs_no_files(init: &Init) {
    let finished = as_user(init, "4711", false);
    assert!(finished.out.contains("uid=4711 gid=4711 groups=[4711]"), "{finished:?}");
    let finished = as_user(init, "4711:4712", false);
    assert!(finished.out.contains("uid=4711 gid=4712 groups=[4712]"), "{finished:?}");
}

fn an_unknown_user_is_one_clear_line(init: &Init) {
    for files in [true, false] {
        let finished = as_user(init, "nobody-knows", files);
        let err = &finished.err;
        assert!(
            finished.code == 125
                && err.lines().count() == 1
                && err.contains("nobody-knows")
                && err.contains("/etc/passwd"),
            "{finished:?}"
        );
    }
}
