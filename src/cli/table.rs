//! Rows in columns, for lists on a terminal.

/// Prints rows under a header, each column as wide as its longest cell.
pub fn print<const N: usize>(header: [&str; N], rows: &[[String; N]]) {
    let mut widths = header.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    say!("{}", line(&header, &widths));
    for row in rows {
        say!("{}", line(&row.each_ref().map(String::as_str), &widths));
    }
}

fn line(cells: &[&str], widths: &[usize]) -> String {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    padded.join("  ").trim_end().to_owned()
}

/// Text from elsewhere with what would steer the terminal made visible.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A list in one cell; `-` when it is empty.
pub fn listed(words: &[String]) -> String {
    match words {
        [] => "-".to_owned(),
        words => words.join(","),
    }
}

/// RFC 3339 in UTC, to the second.
pub fn time(at: i64) -> String {
    jiff::Timestamp::from_microsecond(at).map_or_else(|_| at.to_string(), |time| time.strftime("%FT%TZ").to_string())
}
