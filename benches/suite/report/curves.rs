//! Cost curves: CPU time over what grows, a panel for each thing that does.

use super::picture::{Anchor, Picture, round_up};
use crate::figure::Figure;

const PANEL: (f64, f64) = (410.0, 250.0);
/// Left, top, right and bottom of the axes within a panel.
const MARGIN: (f64, f64, f64, f64) = (52.0, 62.0, 36.0, 34.0);

/// One thing that grows.
struct Panel {
    title: &'static str,
    curves: Vec<Curve>,
}

/// CPU time over a number.
struct Curve {
    label: &'static str,
    class: (&'static str, &'static str),
    points: Vec<(f64, f64)>,
}

/// All panels for which there are figures; `None`: there are none.
pub(super) fn growth(figures: &[&Figure]) -> Option<String> {
    let ours = |label, prefix| Curve { label, class: ("curve", "ours"), points: points(figures, prefix) };
    let peer =
        |label, prefix| Curve { label, class: ("curve-peer", "peer"), points: points(figures, prefix) };
    let panels = [
        Panel {
            title: "Decision by applications",
            curves: vec![
                peer("listener and Redis", "applications_redis_"),
                ours("embedded store", "applications_"),
            ],
        },
        Panel { title: "Gateway by mapping rules", curves: vec![ours("", "rules_")] },
        Panel { title: "Gateway by open connections", curves: vec![ours("", "connections_")] },
        Panel { title: "Gateway by services", curves: vec![ours("", "services_")] },
    ];
    let drawn: Vec<&Panel> =
        panels.iter().filter(|panel| panel.curves.iter().any(|curve| curve.points.len() > 1)).collect();
    if drawn.is_empty() {
        return None;
    }
    let columns = drawn.len().min(2);
    let rows = drawn.len().div_ceil(2);
    let mut picture = Picture::new(PANEL.0 * float(columns), PANEL.1 * float(rows));
    for (place, panel) in drawn.into_iter().enumerate() {
        let corner = (PANEL.0 * float(place % 2), PANEL.1 * float(place / 2));
        draw(&mut picture, corner, panel);
    }
    Some(picture.finish())
}

/// Sizes and values of figures called `<prefix><size>_cpu_us`.
fn points(figures: &[&Figure], prefix: &str) -> Vec<(f64, f64)> {
    let point = |figure: &&Figure| {
        let size = figure.name.strip_prefix(prefix)?.strip_suffix("_cpu_us")?.parse().ok()?;
        Some((size, figure.value()?))
    };
    figures.iter().filter_map(point).collect()
}

fn draw(picture: &mut Picture, (left, top): (f64, f64), panel: &Panel) {
    let all = || panel.curves.iter().flat_map(|curve| &curve.points);
    let highest = round_up(all().map(|(_, value)| *value).fold(1.0, f64::max) * 1.08);
    let sizes = || all().map(|(size, _)| size.log10());
    let (first, last) = (sizes().fold(f64::MAX, f64::min), sizes().fold(f64::MIN, f64::max));
    let (x0, y0) = (left + MARGIN.0, top + MARGIN.1);
    let (width, height) = (PANEL.0 - MARGIN.0 - MARGIN.2, PANEL.1 - MARGIN.1 - MARGIN.3);
    let place = |(size, value): (f64, f64)| {
        let along = (size.log10() - first) / (last - first).max(0.1);
        (x0 + 14.0 + along * (width - 28.0), y0 + height - value / highest * height)
    };
    picture.text("title", (left + 20.0, top + 28.0), Anchor::Start, panel.title);
    picture.text("small", (left + 20.0, top + 46.0), Anchor::Start, "microseconds of CPU");
    for step in 0..=2 {
        let value = highest * f64::from(step) / 2.0;
        let y = place((1.0, value)).1;
        picture.line("rule", (x0, y), (x0 + width, y));
        picture.text("small", (x0 - 8.0, y + 4.0), Anchor::End, short(value));
    }
    for curve in &panel.curves {
        draw_curve(picture, curve, &place);
    }
    let mut marked = vec![];
    for (size, _) in all() {
        if !marked.contains(size) {
            let x = place((*size, 0.0)).0;
            picture.text("small", (x, y0 + height + 18.0), Anchor::Middle, short(*size));
            marked.push(*size);
        }
    }
}

fn draw_curve(picture: &mut Picture, curve: &Curve, place: &dyn Fn((f64, f64)) -> (f64, f64)) {
    let placed: Vec<(f64, f64)> = curve.points.iter().map(|point| place(*point)).collect();
    picture.curve(curve.class.0, &placed);
    for ((x, y), (_, value)) in placed.iter().zip(&curve.points) {
        picture.dot(curve.class.1, (*x, *y));
        picture.text("on-curve", (*x, y - 9.0), Anchor::Middle, format!("{value:.1}"));
    }
    if let Some((x, y)) = placed.first() {
        picture.text("on-curve", (x - 14.0, y - 25.0), Anchor::Start, curve.label);
    }
}

/// `10000` as `10k`, without digits that say nothing.
fn short(value: f64) -> String {
    match value {
        1_000_000.0.. => format!("{}M", value / 1e6),
        1_000.0.. => format!("{}k", value / 1e3),
        _ => format!("{value}"),
    }
}

#[allow(clippy::cast_precision_loss, reason = "there are four panels")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_the_names() {
        let figure = |name: &str| Figure::new(name, name, "µs CPU", Ok(vec![2.0]));
        let figures = [figure("rules_10_cpu_us"), figure("rules_10000_vs_10"), figure("services_1_cpu_us")];
        let all: Vec<&Figure> = figures.iter().collect();
        assert_eq!(points(&all, "rules_"), [(10.0, 2.0)]);
    }

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!([1.0, 2.5, 1e3, 1e4, 1e6].map(short), ["1", "2.5", "1k", "10k", "1M"]);
    }
}
