//! The parts of `docs/reliability.md` that tests have found out: compared, or written anew with `UPDATE_DOCS=1`.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

const PAGE: &str = "docs/reliability.md";

/// Two tests must not write the page at the same time.
static WRITING: Mutex<()> = Mutex::new(());

/// Asserts that the page has exactly `table` between `<!-- name -->` and `<!-- /name -->`.
pub fn keep(name: &str, table: &str) {
    let _alone = WRITING.lock();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let old = fs::read_to_string(&path).expect(PAGE);
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let from = old.find(&begin).expect("the mark at the table's begin") + begin.len();
    let to = from + old[from..].find(&end).expect("the mark at the table's end");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{}{table}{}", &old[..from], &old[to..])).expect("the page can be written");
        return;
    }
    assert!(&old[from..to] == table, "{PAGE} does not have this table (UPDATE_DOCS=1 writes it):\n{table}");
}
