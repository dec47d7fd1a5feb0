//! The parts of pages that are the code's own, or that tests have found out: compared, or written anew with `UPDATE_DOCS=1`.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

/// Two tests must not write a page at the same time.
static WRITING: Mutex<()> = Mutex::new(());

/// Where the part of a page is that stands between `<!-- name -->` and `<!-- /name -->`.
pub fn marked(text: &str, name: &str) -> Range<usize> {
    let begin = format!("<!-- {name} -->\n");
    let from = text.find(&begin).unwrap_or_else(|| panic!("there is no {begin}")) + begin.len();
    from..from + text[from..].find(&format!("<!-- /{name} -->")).unwrap_or_else(|| panic!("{name} has no end"))
}

/// Asserts that this is what `page`, a path below the project, has between the marks of this name.
pub fn keep(page: &str, name: &str, part: &str) {
    let _alone = WRITING.lock();
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = project.join(page);
    let old = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
    let place = marked(&old, name);
    if std::env::var_os("UPDATE_DOCS").is_none() {
        assert!(&old[place] == part, "{page} does not have this as its {name} (UPDATE_DOCS=1 writes it):\n{part}");
        return;
    }
    let mut new = old.clone();
    new.replace_range(place, part);
    // In one step, because other tests read the page.
    let beside = project.join(format!("target/{}", page.replace('/', "-")));
    let written = fs::write(&beside, new).and_then(|()| fs::rename(&beside, &path));
    written.unwrap_or_else(|error| panic!("{page}: {error}"));
}
