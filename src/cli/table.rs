//! Rows under titles.

use anstyle::Style;

/// The style of titles.
pub const BOLD: Style = Style::new().bold();

/// One field of a row.
pub struct Cell {
    text: String,
    style: Style,
}

/// A field of this style.
pub fn cell(text: impl Into<String>, style: Style) -> Cell {
    Cell {
        text: text.into(),
        style,
    }
}

/// Columns as wide as their widest field, two spaces between them.
pub fn columns(head: &[&str], rows: &[Vec<Cell>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.text.chars().count())
            .chain(head.get(column).map(|word| word.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let mut put = |fields: &[(&str, Style)]| {
        let mut line = String::new();
        for ((text, style), width) in fields.iter().zip(&widths) {
            let room = width.saturating_sub(text.chars().count()) + 2;
            line.push_str(&format!("{style}{text}{style:#}{:room$}", ""));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    };
    let titles: Vec<(&str, Style)> = head.iter().map(|word| (*word, BOLD)).collect();
    put(&titles);
    for row in rows {
        let fields: Vec<(&str, Style)> = row
            .iter()
            .map(|cell| (cell.text.as_str(), cell.style))
            .collect();
        put(&fields);
    }
    out
}
