"use strict";
// Draw the deployed dashboard. A custom widget's HTML is in a shadow tree, because CloudWatch shows it apart from its own
// page, and its cwdb-action elements work: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_samples.html
const AGAIN_MS = 10000;
const COLORS = ["#0972d3", "#d68910", "#037f0c", "#8456ce", "#c33d69", "#067f68", "#7d8998", "#b0413e", "#5f6b7a", "#3184c2"];
const board = document.getElementById("board");
const minutes = document.getElementById("minutes");
const popup = document.getElementById("popup");
const places = new Map(); // widget number -> {holder, chart}
let shown = null; // the last board received

const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const made = (name, text = "", className = "") => {
  const element = document.createElement(name);
  element.textContent = text;
  element.className = className;
  return element;
};

function short(value) {
  if (value === undefined) return "–";
  const units = [[1e9, "G"], [1e6, "M"], [1e4, "k"]];
  for (const [size, sign] of units) if (Math.abs(value) >= size) return `${(value / (sign === "k" ? 1e3 : size)).toFixed(1)} ${sign}`;
  return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 2 : 1);
}

function place(widget, number) {
  const known = places.get(number);
  if (known) return known;
  const section = made("section", "", widget.type);
  section.style.gridColumn = `${widget.x + 1} / span ${widget.width}`;
  section.style.gridRow = `${widget.y + 1} / span ${widget.height}`;
  if (widget.properties.title) section.append(made("h3", widget.properties.title));
  const holder = made("div");
  section.append(holder);
  board.append(section);
  const fresh = { holder, section, chart: null };
  places.set(number, fresh);
  return fresh;
}

const drawing = {
  text({ holder }, widget) {
    holder.replaceChildren(made("h2", widget.properties.markdown.replace(/^#+ */, "")));
  },

  alarm({ holder }, widget) {
    holder.className = "alarms";
    holder.replaceChildren(
      ...widget.drawn.map((alarm) => {
        const chip = made("span", alarm.name.replace(/^.*-local-/, "").replace(/-[A-Za-z0-9]{6,}$/, ""), `alarm ${alarm.state}`);
        chip.title = `${alarm.state}: ${alarm.description}`;
        return chip;
      }),
    );
  },

  log({ holder }, widget) {
    if (!widget.drawn.length) return holder.replaceChildren(made("span", "None.", "empty"));
    const table = made("table", "", "log");
    const names = ["at", "message", "task_id", "reason", "error"];
    const head = made("tr");
    head.append(...names.map((name) => made("th", name)));
    const lines = widget.drawn.map((line) => {
      const row = made("tr");
      row.append(...names.map((name) => made("td", name === "at" ? new Date(line.at).toLocaleTimeString() : (line[name] ?? ""))));
      return row;
    });
    table.append(head, ...lines);
    holder.replaceChildren(table);
  },

  metric(where, widget) {
    if (widget.properties.view === "singleValue") return numbers(where.holder, widget);
    if (widget.properties.view === "bar") return chart(where, bars(widget));
    return chart(where, lines(widget));
  },

  custom(where, widget) {
    // A widget with the focus is not redrawn. A search stays: each call sends the fields.
    if (!where.section.contains(document.activeElement)) return call(where, widget, widget.properties.endpoint, {}, "widget");
  },
};

function numbers(holder, widget) {
  holder.className = "numbers";
  holder.replaceChildren(
    ...widget.drawn.map((graph) => {
      const figure = made("span", graph.label);
      const value = made("b", short(graph.points.at(-1)?.[1]));
      if (graph.color) value.style.color = graph.color;
      figure.prepend(value);
      return figure;
    }),
  );
}

function bars(widget) {
  const graphs = widget.drawn;
  return {
    type: "bar",
    data: {
      labels: graphs.map((graph) => graph.label),
      datasets: [{
        data: graphs.map((graph) => graph.points.at(-1)?.[1] ?? 0),
        backgroundColor: graphs.map((graph, at) => graph.color || COLORS[at % COLORS.length]),
      }],
    },
    options: options(widget, { indexAxis: "y", plugins: { legend: { display: false } }, scales: {} }),
  };
}

function lines(widget) {
  const stacked = Boolean(widget.properties.stacked);
  const { start, end } = shown.window;
  const axis = { beginAtZero: true, stacked, ticks: { maxTicksLimit: 5, callback: short }, grid: { color: "#7d899833" } };
  const scales = {
    x: { type: "linear", min: start, max: end, ticks: { maxTicksLimit: 5, maxRotation: 0, callback: clock }, grid: { display: false } },
    y: axis,
  };
  if (widget.drawn.some((graph) => graph.right)) scales.right = { ...axis, position: "right", stacked: false };
  return {
    type: "line",
    data: {
      datasets: widget.drawn.map((graph, at) => {
        const color = graph.color || COLORS[at % COLORS.length];
        return {
          label: graph.label,
          data: graph.points.map(([x, y]) => ({ x, y })),
          borderColor: color,
          backgroundColor: `${color}66`,
          borderWidth: 1.5,
          pointRadius: 1.5,
          fill: stacked ? "stack" : false,
          yAxisID: graph.right ? "right" : "y",
        };
      }),
    },
    options: options(widget, {
      scales,
      plugins: { legend: { position: "bottom", labels: { boxWidth: 10, boxHeight: 10, font: { size: 11 } } } },
    }),
  };
}

function options(widget, own) {
  const tooltip = { callbacks: { title: ([first]) => (first?.dataset.label ? clock(first.parsed.x) : first?.label) } };
  return { ...own, animation: false, responsive: true, maintainAspectRatio: false, plugins: { ...own.plugins, tooltip } };
}

function chart(where, config) {
  const color = dark() ? "#d1d5db" : "#16191f";
  Chart.defaults.color = color;
  if (where.chart) {
    where.chart.data = config.data;
    where.chart.options = config.options;
    return where.chart.update("none");
  }
  const canvas = made("canvas");
  where.holder.replaceChildren(canvas);
  where.chart = new Chart(canvas, config);
}

// Custom widgets: CloudWatch's request to the function, and its handling of the answer.

function context(where, widget) {
  const forms = {};
  for (const field of where.holder.shadowRoot?.querySelectorAll("input, select, textarea") ?? []) {
    if (field.name) forms[field.name] = field.value;
  }
  return {
    dashboardName: shown.name,
    title: widget.properties.title,
    params: widget.properties.params ?? {},
    forms: { all: forms },
    theme: dark() ? "dark" : "light",
    width: where.holder.clientWidth,
    height: where.holder.clientHeight,
    timeRange: { mode: "relative", start: shown.window.start, end: Date.now(), relativeStart: Number(minutes.value) * 60000 },
    locale: navigator.language,
  };
}

async function call(where, widget, endpoint, given, display) {
  // A widget's call has its own parameters, a button's call only the button's. Both have the context.
  const payload = { ...(endpoint === widget.properties.endpoint ? widget.properties.params : {}), ...given };
  payload.widgetContext = context(where, widget);
  const answer = await fetch("/operations/call", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ endpoint, payload }),
  });
  const { result, error } = await answer.json();
  const target = display === "popup" ? popup.lastElementChild : where.holder;
  put(target, error === undefined ? result : `The function failed: ${error}`, where, widget);
  if (display === "popup") popup.showModal();
}

function put(target, result, where, widget) {
  const root = target.shadowRoot ?? target.attachShadow({ mode: "open" });
  if (typeof result === "string" && result.trimStart().startsWith("<")) {
    root.innerHTML = result; // written by OpsWidgetFunction, which escapes row data; no script runs here
  } else {
    root.replaceChildren(made("pre", typeof result === "string" ? result : JSON.stringify(result, null, 2)));
    root.firstChild.style.whiteSpace = "pre-wrap";
  }
  for (const action of root.querySelectorAll("cwdb-action")) act(action, where, widget);
}

function act(action, where, widget) {
  const element = action.previousElementSibling;
  const text = action.textContent;
  action.hidden = true;
  element.addEventListener(action.getAttribute("event") ?? "click", (event) => {
    event.preventDefault();
    const question = action.getAttribute("confirmation");
    if (question && !confirm(question)) return;
    const given = text.trim() ? JSON.parse(text) : {};
    call(where, widget, action.getAttribute("endpoint"), given, action.getAttribute("display") ?? "widget");
  });
}

async function refresh() {
  const state = document.getElementById("state");
  try {
    const answer = await fetch(`/operations/board?minutes=${minutes.value || 15}`);
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    shown = await answer.json();
    document.getElementById("name").textContent = `${shown.name}, version ${shown.version}`;
    if (!minutes.length) {
      minutes.append(...shown.window.ranges.map((range) => new Option(range < 120 ? `${range} min` : `${range / 60} h`, range)));
    }
    await Promise.all(shown.widgets.map((widget, number) => drawing[widget.type](place(widget, number), widget)));
    state.textContent = `${new Date().toLocaleTimeString()}, again in ${AGAIN_MS / 1000} s`;
    state.className = "";
  } catch (problem) {
    state.textContent = `the stack does not answer (${problem.message})`;
    state.className = "bad";
  }
  document.body.dataset.drawn = String(Number(document.body.dataset.drawn ?? 0) + 1);
}

minutes.addEventListener("change", refresh);
refresh().then(function again() {
  setTimeout(() => refresh().then(again), AGAIN_MS);
});
