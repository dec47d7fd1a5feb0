//! The commands that pages have people run.

/// Those of the block between `<!-- name -->` and `<!-- /name -->`.
pub fn commands(page: &str, name: &str) -> String {
    let begin = format!("<!-- {name} -->\n```\n");
    let end = format!("```\n<!-- /{name} -->\n");
    let block = page.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    block.unwrap_or_else(|| panic!("the page has no block of commands called {name}")).0.to_owned()
}
