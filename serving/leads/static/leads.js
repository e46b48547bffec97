"use strict";
(() => {
  const LIMIT = 50;
  const LISTED = ["search", "grade", "churn_band", "movement", "segment"];
  const $ = (id) => document.getElementById(id);
  let book = null, total = 0, question = null, leadQuestion = null, timer = 0, typing = 0, waits = 0;

  // --- small words

  // Data reaches the page as text and attributes only; nothing here parses markup.
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) if (value != null) node.setAttribute(name, value);
    node.append(...children.filter((child) => child != null));
    return node;
  }
  const bdi = (words) => el("bdi", null, String(words));
  const whole = (number) => number.toLocaleString("en");
  const percent = (share) => share == null ? "–" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
  const signed = (number) => number > 0 ? `+${number}` : number < 0 ? `−${-number}` : "0";
  const formatted = (style) => new Intl.DateTimeFormat("en-GB", style);
  const asDay = formatted({ day: "numeric", month: "short", year: "numeric" });
  const asMoment = formatted({ weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  const asFull = formatted({ day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short" });
  const moment = (text, format) => text ? el("time", { datetime: text, title: asFull.format(new Date(text)) }, format.format(new Date(text))) : "–";

  // --- the service

  async function ask(path, options) {
    let answer;
    try {
      answer = await fetch(path, { cache: "no-store", ...options });
    } catch (error) {
      throw error.name === "AbortError" ? { kind: "old" } : { kind: "away", detail: "The service does not answer; it may be starting again." };
    }
    if (answer.status === 204) return null;
    const said = await answer.json().catch(() => ({}));
    if (answer.ok) return said;
    const detail = said.detail || `The service answered ${answer.status}.`;
    if (answer.status === 401) throw { kind: "key", detail };
    if ([429, 502, 503, 504].includes(answer.status)) throw { kind: "away", detail, after: Number(answer.headers.get("retry-after")) };
    throw { kind: said.code || "failed", detail };
  }

  function selection() {
    const here = new URLSearchParams(location.search), kept = new URLSearchParams();
    for (const name of LISTED) for (const value of here.getAll(name)) if (value) kept.append(name, value);
    return kept;
  }
  function view() {
    const here = new URLSearchParams(location.search), asked = selection();
    for (const name of ["sort", "offset"]) if (here.get(name)) asked.set(name, here.get(name));
    return asked;
  }
  function go(changes, replace) {
    const here = new URLSearchParams(location.search);
    for (const [name, values] of Object.entries(changes)) {
      here.delete(name);
      for (const value of [].concat(values)) if (value) here.append(name, value);
    }
    const query = here.toString();
    history[replace ? "replaceState" : "pushState"](null, "", location.pathname + (query ? `?${query}` : ""));
    show();
  }
  const choose = (changes, replace) => go({ ...changes, offset: "" }, replace);

  // --- the list

  async function show() {
    fill();
    showLead();
    const asked = view();
    asked.set("limit", LIMIT);
    const key = asked.toString();
    if (question && question.key === key && !question.failed) return;
    if (question) question.abort.abort();
    clearTimeout(timer);
    const mine = question = { key, abort: new AbortController(), failed: false };
    $("scroll").classList.add("loading");
    $("scroll").setAttribute("aria-busy", "true");
    if (!book) say("count", "Loading …");
    try {
      const said = await ask(`v1/leads?${key}`, { signal: mine.abort.signal });
      waits = 0;
      enter(true);
      list(said);
    } catch (error) {
      mine.failed = true;
      if (error.kind !== "old") trouble(error);
    } finally {
      if (question === mine) {
        $("scroll").classList.remove("loading");
        $("scroll").setAttribute("aria-busy", "false");
      }
    }
  }

  function list(said) {
    const fresh = book && book !== said.book.id;
    if (fresh) notice(`A new export from ${asFull.format(new Date(said.book.scored_at))} has taken the place of the one you were looking at.`, "Show it from the start", () => { notice(""); go({ offset: "" }); });
    else if (!$("notice").dataset.fresh) notice("");
    if (fresh) $("notice").dataset.fresh = "1";
    book = said.book.id;
    total = said.total;
    about(said.book);
    attributes(said.book.attributes);
    const last = said.offset + LIMIT;
    $("rows").replaceChildren(...said.leads.map(line));
    const withheld = said.withheld ? ` ${said.withheld} on this page withdrew consent since the export and are not shown.` : "";
    const part = total === said.book.leads ? `${whole(total)} leads.` : `${whole(total)} of ${whole(said.book.leads)} leads.`;
    say("count", part + withheld);
    say("place", total ? `${whole(Math.min(said.offset + 1, total))}–${whole(Math.min(last, total))} of ${whole(total)}` : "");
    $("back").disabled = said.offset === 0;
    $("next").disabled = last >= total;
    $("empty").hidden = said.leads.length > 0;
    say("empty", total ? "Nobody on this page can be shown." : "No lead is like that. Ask for less at once, or show all.");
    $("download").href = `v1/leads.csv?${selection()}`;
    say("download", `Download ${total === 1 ? "this lead" : `these ${whole(total)}`} (CSV)`);
    $("download").hidden = !total;
  }

  function line(lead) {
    const open = el("button", { type: "button", "data-id": lead.subscriber_id, title: lead.subscriber_id, "aria-haspopup": "dialog" }, bdi(lead.subscriber_id));
    open.addEventListener("click", () => go({ lead: lead.subscriber_id }));
    const why = (lead.reasons_for || [])[0] || (lead.reasons_against || [])[0];
    const against = !(lead.reasons_for || []).length && why;
    const clear = lead.send_time_confident ? "clearly better" : "not clearly better";
    return el("tr", { role: "row" },
      cell("Rank", "number", whole(lead.rank)),
      cell("Lead", "lead", open),
      cell("Score", "", el("span", null, String(lead.score), el("span", { class: `grade ${lead.grade}`, title: `Grade ${lead.grade}` }, lead.grade))),
      cell("Chance", "number", percent(lead.probability)),
      cell("Change", "", change(lead)),
      cell("Churn risk", "", lead.churn_band ? el("span", null, lead.churn_band, el("span", { class: "quiet" }, percent(lead.churn_probability))) : "–"),
      cell("Next send", "", lead.recommended_send_at ? el("span", null, moment(lead.recommended_send_at, asMoment), el("span", { class: "quiet" }, clear)) : "–"),
      cell("Last engaged", "", moment(lead.last_engagement_at, asDay)),
      cell("Strongest reason", "", why ? el("span", { class: "clip", title: why }, against ? "Against: " : "", bdi(why)) : "–"));
  }
  const cell = (label, kind, child) => el("td", { role: "cell", "data-label": label, class: kind || null }, typeof child === "string" ? el("span", null, child) : child);

  function change(lead) {
    if (lead.movement === "new") return el("span", null, "new");
    if (lead.score_change == null) return el("span", { title: "There was no export before." }, "–");
    const way = lead.score_change > 0 ? "up" : lead.score_change < 0 ? "down" : "";
    const from = lead.grade_before !== lead.grade ? el("span", { class: "quiet" }, `from ${lead.grade_before}`) : null;
    return el("span", { title: lead.change_reason }, el("span", { class: way }, signed(lead.score_change)), from);
  }

  function about(said) {
    say("about", `${said.list_name} · export of ${asFull.format(new Date(said.scored_at))} · model ${said.model_version} · ${whole(said.left_out.no_consent)} without consent and ${whole(said.left_out.converted)} converted are left out`);
    $("simulated").hidden = !said.simulated;
  }
  function attributes(names) {
    const here = [...$("attribute").options].map((option) => option.value);
    if (here.join("\n") !== names.join("\n")) $("attribute").replaceChildren(...names.map((name) => el("option", { value: name }, name)));
    $("segments").hidden = !names.length;
  }

  // The controls say what the address says.
  function fill() {
    const here = new URLSearchParams(location.search), words = (name) => (here.get(name) || "").split(",");
    if (document.activeElement !== $("search")) $("search").value = here.get("search") || "";
    for (const box of $("grades").querySelectorAll("input")) box.checked = words("grade").includes(box.value);
    for (const name of ["movement", "churn_band"]) $(name).value = here.get(name) || "";
    const sort = here.get("sort") || "rank";
    $("order").value = sort;
    for (const th of $("head").children) {
      const mine = th.dataset.sort && th.dataset.sort === sort.replace("-", "");
      if (mine) th.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
    $("chips").replaceChildren(...here.getAll("segment").map((segment) => {
      const chip = el("button", { type: "button", title: segment, "aria-label": `Remove ${segment}` }, bdi(segment.replace("=", " = ")), " ✕");
      chip.addEventListener("click", () => choose({ segment: here.getAll("segment").filter((one) => one !== segment) }));
      return chip;
    }));
  }

  // --- one lead

  async function showLead() {
    const id = new URLSearchParams(location.search).get("lead");
    if (leadQuestion && leadQuestion.id === id && !leadQuestion.failed) return;
    if (leadQuestion) leadQuestion.abort.abort();
    if (!id) {
      leadQuestion = null;
      if ($("lead").open) closeLead();
      return;
    }
    const mine = leadQuestion = { id, abort: new AbortController(), failed: false };
    try {
      const said = ask(`v1/leads/${encodeURIComponent(id)}`, { signal: mine.abort.signal });
      if (book) openLead(id, el("p", null, "Loading …"));
      openLead(id, ...whole_lead(await said));
    } catch (error) {
      mine.failed = true;
      if (error.kind === "old") return;
      if (error.kind === "key") return trouble(error);
      const again = el("button", { type: "button" }, "Try again");
      again.addEventListener("click", showLead);
      openLead(id, el("p", { class: "error" }, error.detail), again);
    }
  }
  function openLead(id, ...parts) {
    $("lead-title").replaceChildren(bdi(id));
    $("lead-body").replaceChildren(...parts);
    if ($("lead").open) return;
    $("lead").showModal();
    $("lead-title").focus();
  }
  function closeLead() {
    const id = $("lead-title").textContent;
    $("lead").close();
    const opener = [...$("rows").querySelectorAll("[data-id]")].find((button) => button.dataset.id === id);
    if (opener) opener.focus();
  }

  function whole_lead(said) {
    if (!said.lead) return [el("p", null, "This person has withdrawn consent. Nothing of theirs is shown.")];
    const { lead, now } = said, score = now.lead_score, churn = now.churn, send = now.send_time;
    const reasons = score && score.reasons && score.reasons.length ? score.reasons : null;
    const pro = reasons ? pointing(reasons, "↑") : lead.reasons_for || [], con = reasons ? pointing(reasons, "↓") : lead.reasons_against || [];
    return [
      el("dl", { class: "tiles" },
        score ? tile("Score now", graded(score.score, score.grade), `${percent(score.probability)} chance to convert`) : null,
        tile(`In the export of ${asDay.format(new Date(lead.scored_at))}`, graded(lead.score, lead.grade), `rank ${whole(lead.rank)}, ${percent(lead.probability)} chance`),
        churn ? tile("Churn risk now", churn.band, `${percent(churn.probability)} chance to go quiet`) : null,
        send ? tile("Best next send", moment(send.send_at, asMoment), send.confident ? `clearly beats the usual time: ${signed(Math.round(100 * send.gain))} % responses` : "this data does not show that it beats the usual time") : null),
      el("p", { class: "quiet" }, freshness(said)),
      lead.change_reason || lead.movement === "new" ? el("p", null, `Since the export before: ${moved(lead)}`) : null,
      el("div", { class: "two" },
        el("div", null, el("h3", null, "Speaks for this lead"), bullets(pro)),
        el("div", null, el("h3", null, "Speaks against"), bullets(con))),
      churn && churn.reasons && churn.reasons.length ? el("div", null, el("h3", null, "Behind the churn risk (↑ raises it, ↓ lowers it)"), bullets(churn.reasons)) : null,
      el("h3", null, "History"), curve(said.history), standings(said.history),
      el("h3", null, "Attributes"), facts(lead.attributes),
    ].filter(Boolean);
  }
  const pointing = (reasons, arrow) => reasons.filter((reason) => reason.startsWith(arrow)).map((reason) => reason.slice(1).trim());
  const graded = (score, grade) => el("span", null, String(score), el("span", { class: `grade ${grade}` }, grade));
  const tile = (name, value, words) => el("div", { class: "tile" }, el("dt", null, name), el("dd", { class: "big" }, value), el("dd", { class: "quiet" }, words));
  const bullets = (items) => items.length ? el("ul", null, ...items.map((item) => el("li", null, bdi(item)))) : el("p", { class: "quiet" }, "Nothing in particular.");
  function freshness(said) {
    const engaged = said.lead.last_engagement_at;
    const words = { ok: "fresh data", stale: "old data", partial: "some data missing", prior: "nothing known of them now: the list's average" };
    return `Scored at this moment on ${words[said.status] || said.status}. Last engaged: ${engaged ? asDay.format(new Date(engaged)) : "never"}.`;
  }
  function moved(lead) {
    if (lead.movement === "new") return "new in it.";
    return `${signed(lead.score_change || 0)}, from ${lead.score_before} (${lead.grade_before}) to ${lead.score} (${lead.grade}): ${lead.change_reason}.`;
  }
  function facts(attributes) {
    const names = Object.keys(attributes);
    if (!names.length) return el("p", { class: "quiet" }, "The list has none.");
    return el("dl", { class: "facts" }, ...names.flatMap((name) => [el("dt", null, bdi(name)), el("dd", null, attributes[name] == null ? "–" : bdi(attributes[name]))]));
  }

  function curve(history) {
    const draw = (tag, attributes, words) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      if (words) node.textContent = words;
      return node;
    };
    const times = history.map((one) => Date.parse(one.scored_at)), first = times[0], span = times.at(-1) - first;
    const x = (time) => span ? 40 + 540 * (time - first) / span : 310, y = (score) => 130 - 1.15 * score;
    const points = history.map((one, at) => [x(times[at]), y(one.score)]);
    const told = history.map((one) => `${one.score} on ${asDay.format(new Date(one.scored_at))}`);
    const svg = draw("svg", { viewBox: "0 0 600 160", role: "img", "aria-label": `Score: ${told.join(", ")}` });
    for (const score of [0, 50, 100]) svg.append(draw("line", { class: "grid", x1: 34, x2: 590, y1: y(score), y2: y(score) }), draw("text", { x: 28, y: y(score) + 4, "text-anchor": "end" }, String(score)));
    svg.append(draw("polyline", { class: "curve", points: points.map((point) => point.join(",")).join(" ") }));
    for (const [at, [cx, cy]] of points.entries()) {
      const dot = draw("circle", { class: "dot", cx, cy, r: 4 });
      dot.append(draw("title", {}, told[at]));
      svg.append(dot);
    }
    svg.append(draw("text", { x: points[0][0], y: 154, "text-anchor": span ? "start" : "middle" }, asDay.format(first)));
    if (span) svg.append(draw("text", { x: 580, y: 154, "text-anchor": "end" }, asDay.format(times.at(-1))));
    return svg;
  }
  function standings(history) {
    const head = ["Export of", "Score", "Chance", "Model"].map((name) => el("th", { scope: "col" }, name));
    const rows = [...history].reverse().map((one) => el("tr", null,
      el("th", { scope: "row" }, moment(one.scored_at, asDay)), el("td", null, graded(one.score, one.grade)), el("td", null, percent(one.probability)), el("td", null, bdi(one.model_version))));
    return el("details", null, el("summary", null, `As a table (${rows.length})`), el("table", { class: "plain" }, el("thead", null, el("tr", null, ...head)), el("tbody", null, ...rows)));
  }

  // --- when something is in the way

  function trouble(error) {
    if (error.kind === "key") return enter(false);
    if (error.kind === "away") {
      // Shown again and again until it is there; the selection stays in the address.
      const seconds = Math.min(30, Math.max(error.after || 0, 2 ** Math.min(waits++, 4)));
      clearTimeout(timer);
      timer = setTimeout(show, 1000 * seconds);
      return notice(`${error.detail} Asking again in ${seconds} s.`, "Ask now", show);
    }
    const odd = error.kind === "malformed_request";
    notice(error.detail, odd ? "Show all" : "Look again", odd ? reset : show);
    if (!book) say("count", "");
  }
  function notice(words, action, act) {
    delete $("notice").dataset.fresh;
    $("notice").hidden = !words;
    say("notice-words", words);
    $("notice-act").hidden = !action;
    say("notice-act", action || "");
    $("notice-act").onclick = act || null;
  }
  function say(id, words) {
    if ($(id).textContent !== words) $(id).textContent = words;
  }

  // --- keys and sessions

  // Whether somebody is in: the leads, or what asks for a key. The address, and so the selection, stays.
  function enter(inside) {
    $("leads").hidden = $("leave").hidden = !inside;
    if ($("login").hidden === inside) return;
    $("login").hidden = inside;
    if (inside) return;
    notice("");
    clearTimeout(timer);
    if ($("lead").open) $("lead").close();
    say("login-title", book ? "The session is over: your key again, please" : "Your key, please");
    $("rows").replaceChildren();
    book = null;
    $("key").focus();
  }
  async function logIn(event) {
    event.preventDefault();
    const key = $("key").value.trim();
    say("login-error", "");
    try {
      // A key is plain ASCII; a header cannot carry anything else.
      if (/[^!-~]/.test(key)) throw { kind: "key" };
      await ask("leads/session", { method: "POST", headers: { authorization: `Bearer ${key}`, "content-type": "application/json" }, body: "{}" });
      $("key").value = "";
      leadQuestion = question = null;
      await show();
      if ($("login").hidden && !$("lead").open) $("search").focus();
    } catch (error) {
      say("login-error", error.kind === "key" ? "This key is not known here, or was revoked." : error.detail);
      $("key").focus();
    }
  }
  async function leave() {
    try {
      await ask("leads/session", { method: "DELETE" });
      book = null;
      enter(false);
    } catch (error) {
      trouble(error);
    }
  }
  async function download(event) {
    event.preventDefault();
    const href = $("download").href;
    try {
      // First whether it can be had: a link would save the reason why not as a file.
      const asked = selection();
      asked.set("limit", 1);
      await ask(`v1/leads?${asked}`);
      location.assign(href);
    } catch (error) {
      trouble(error);
    }
  }
  function reset() {
    $("search").value = "";
    go(Object.fromEntries([...LISTED, "sort", "offset"].map((name) => [name, ""])));
  }

  // --- what people do

  for (const th of $("head").querySelectorAll("[data-sort]")) {
    const button = el("button", { type: "button" }, th.textContent);
    th.replaceChildren(button);
    button.addEventListener("click", () => {
      const column = th.dataset.sort, first = ("down" in th.dataset ? "-" : "") + column;
      const sort = (new URLSearchParams(location.search).get("sort") || "rank") === first ? ("down" in th.dataset ? column : `-${column}`) : first;
      choose({ sort: sort === "rank" ? "" : sort });
    });
  }
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => choose({ search: $("search").value.trim() }, true), 250);
  });
  $("grades").addEventListener("change", () => choose({ grade: [...$("grades").querySelectorAll(":checked")].map((box) => box.value).join(",") }));
  for (const name of ["movement", "churn_band"]) $(name).addEventListener("change", () => choose({ [name]: $(name).value }));
  $("order").addEventListener("change", () => choose({ sort: $("order").value === "rank" ? "" : $("order").value }));
  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = $("value").value.trim(), chosen = new URLSearchParams(location.search).getAll("segment");
    clearTimeout(typing);
    if (value) choose({ search: $("search").value.trim(), segment: [...new Set([...chosen, `${$("attribute").value}=${value}`])] });
    else choose({ search: $("search").value.trim() });
    $("value").value = "";
  });
  const turn = (way) => {
    go({ offset: String(Math.max(0, Number(new URLSearchParams(location.search).get("offset") || 0) + way * LIMIT) || "") });
    $("scroll").scrollIntoView({ block: "start" });
  };
  $("back").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("reset").addEventListener("click", reset);
  $("download").addEventListener("click", download);
  $("leave").addEventListener("click", leave);
  $("login").addEventListener("submit", logIn);
  $("close").addEventListener("click", () => go({ lead: "" }));
  $("lead").addEventListener("cancel", (event) => { event.preventDefault(); go({ lead: "" }); });
  $("lead").addEventListener("click", (event) => { if (event.target === $("lead")) go({ lead: "" }); });
  addEventListener("popstate", show);
  show();
})();
