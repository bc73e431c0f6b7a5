// The page's style: system fonts, one accent, light and dark by the reader's preference, always light on paper.

extension DrillPage {
  static let style = """
    :root { color-scheme: light dark; --page: #fff; --ink: #1b1f24; --quiet: #57606a; --line: #d5dae0; --panel: #f5f7f9;
      --recovery: #0b5cad; --proof: #7597ba; --good: #13672f; --bad: #b3261e; --warn: #7d5200; --mark: #fff3e8; }
    @media (prefers-color-scheme: dark) {
      :root { --page: #14181d; --ink: #e4e8ec; --quiet: #9aa5b1; --line: #353d46; --panel: #1d232a;
        --recovery: #5aa9f2; --proof: #56779a; --good: #5cc57e; --bad: #ff8a80; --warn: #e3b341; --mark: #2a2119; }
    }
    * { box-sizing: border-box; }
    body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 3rem; background: var(--page); color: var(--ink);
      font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
    .kind { margin: 0; color: var(--quiet); text-transform: uppercase; letter-spacing: .08em; font-size: .8rem; }
    h1 { margin: .1rem 0 .4rem; font-size: 2rem; line-height: 1.2; }
    h2 { margin: 2.2rem 0 .8rem; font-size: 1.3rem; border-bottom: 2px solid var(--line); padding-bottom: .3rem; }
    h3 { margin: 1.8rem 0 .6rem; font-size: 1.05rem; }
    p { margin: .4rem 0; }
    .lead, .quiet, .note, figcaption, .legend { color: var(--quiet); }
    code { font: .86em/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
    .badge { display: inline-block; font-size: .95rem; font-weight: 600; border: 1.5px solid; border-radius: 1rem;
      padding: .1rem .7rem; vertical-align: middle; white-space: nowrap; }
    .good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
    td > .good, td > .bad, td > .warn, td > .quiet { white-space: nowrap; font-weight: 600; }
    .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; }
    .tile { border: 1px solid var(--line); border-left: 5px solid var(--line); border-radius: 6px; padding: .7rem .9rem;
      background: var(--panel); color: var(--ink); }
    .tile.good { border-left-color: var(--good); } .tile.bad { border-left-color: var(--bad); }
    .tile p { margin: 0; font-size: .85rem; color: var(--quiet); }
    .tile .value { font-size: 1.55rem; font-weight: 650; color: var(--ink); font-variant-numeric: tabular-nums; }
    .tile.bad p:last-child { color: var(--bad); font-weight: 600; }
    .findings { border: 1px solid var(--bad); border-left-width: 5px; border-radius: 6px; margin-top: 1.2rem;
      padding: .2rem 1rem .6rem; background: var(--mark); }
    .findings h3 { margin: .6rem 0 .2rem; color: var(--bad); }
    ul { margin: .3rem 0; padding-left: 1.2rem; } li { margin: .25rem 0; overflow-wrap: anywhere; }
    table { border-collapse: collapse; width: 100%; font-size: .96em; margin: .5rem 0; }
    th, td { text-align: left; vertical-align: top; padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line);
      overflow-wrap: break-word; }
    td:has(> code) { overflow-wrap: anywhere; }
    .assertions { table-layout: fixed; } .assertions td { overflow-wrap: anywhere; }
    .assertions th:first-child { width: 6rem; } .assertions th:nth-child(3) { width: 9rem; }
    .assertions th:nth-child(4) { width: 28%; } .assertions th:last-child { width: 5rem; }
    .name { white-space: nowrap; }
    th { font-weight: 600; color: var(--quiet); }
    .facts th { width: 15rem; font-weight: 400; }
    .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding-right: 0;
      padding-left: .6rem; }
    tr.current td { background: var(--panel); font-weight: 600; }
    .evidence td:nth-child(2) { white-space: nowrap; }
    svg { display: block; width: 100%; height: auto; margin: .4rem 0; }
    svg text { font: 12px system-ui, sans-serif; fill: var(--ink); paint-order: stroke; stroke: var(--page);
      stroke-width: 3px; stroke-linejoin: round; }
    rect.recovery, .key.recovery { fill: var(--recovery); background: var(--recovery); }
    rect.proof, .key.proof { fill: var(--proof); background: var(--proof); }
    .key { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin: 0 .25rem 0 .8rem; }
    .legend .key:first-child { margin-left: 0; }
    line.grid { stroke: var(--line); }
    line.reached { stroke: var(--ink); stroke-dasharray: 2 3; }
    line.objective { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 6 4; } text.objective { fill: var(--bad); }
    .course { fill: none; stroke: var(--recovery); stroke-width: 1.5; opacity: .55; }
    circle.within { fill: var(--recovery); }
    path.over { stroke: var(--bad); stroke-width: 2.5; fill: none; }
    figure { margin: 1rem 0; }
    @media screen and (max-width: 44rem) {
      .facts th { width: 8rem; } h2 .name { white-space: normal; }
      table { display: block; overflow-x: auto; } .facts, .evidence { display: table; }
      .assertions td:nth-child(2) { min-width: 14rem; } .assertions td:nth-child(4) { min-width: 10rem; }
      section, figure { overflow-x: auto; } svg { min-width: 40rem; }
    }
    @page { size: A4; margin: 16mm 14mm; }
    @media print {
      :root { color-scheme: light; --page: #fff; --ink: #000; --quiet: #444; --line: #bbb; --panel: #f5f7f9;
        --recovery: #0b5cad; --proof: #7597ba; --good: #13672f; --bad: #b3261e; --warn: #7d5200; --mark: #fff7f0; }
      html { font-size: 11pt; }
      body { max-width: none; padding: 0; font-size: 9.5pt; line-height: 1.4; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
      h2, h3, figcaption, .legend { break-after: avoid; }
      tr, figure, svg, .tile, .findings { break-inside: avoid; }
      th, td { padding-top: .2rem; padding-bottom: .2rem; }
      thead { display: table-header-group; }
      .tiles { grid-template-columns: repeat(4, 1fr); }
      .tile .value { font-size: 1.25rem; }
    }
    """
}
