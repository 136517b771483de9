// The page of the client. Text is only ever set as text, never as HTML.
const at = (id) => document.getElementById(id);
const state = { study: null, series: null, findings: null, order: ["number", 1], viewer: false, poll: null };

function make(tag, text = "", more = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  return Object.assign(element, more);
}

function say(text, bad = false) {
  at("message").textContent = text;
  at("message").classList.toggle("bad", bad);
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { "X-Lung-D2": "1", ...options.headers } });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error || `The service answered ${answer.status}`);
  return content;
}

const told = (work) => async (...given) => {
  try {
    return await work(...given);
  } catch (error) {
    say(error.message, true);
  }
};

// Uploads --------------------------------------------------------------------------------------------------------

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) break;
    for (const one of some) found.push(...(await filesOf(one)));
  }
  return found;
}

function send(body, type, share) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/api/upload");
    request.setRequestHeader("X-Lung-D2", "1");
    if (type) request.setRequestHeader("Content-Type", type);
    request.upload.onprogress = (event) => (at("sent").value = share(event.loaded / event.total));
    request.onerror = () => failed(new Error("The upload was interrupted"));
    request.onload = () => {
      const content = JSON.parse(request.responseText || "{}");
      request.status < 300 ? done(content) : failed(new Error(content.error));
    };
    request.send(body);
  });
}

const upload = told(async (files) => {
  if (!files.length) return;
  say("Uploading …");
  at("sent").hidden = false;
  const archives = files.filter((file) => /\.zip$/i.test(file.name));
  const others = files.filter((file) => !archives.includes(file));
  const parcels = archives.map((file) => [file, "application/zip"]);
  for (let first = 0; first < others.length; first += 200) {
    const form = new FormData();
    others.slice(first, first + 200).forEach((file, index) => form.append("file", file, String(index)));
    parcels.push([form, ""]);
  }
  let images = 0;
  const skipped = [];
  const failures = [];
  for (const [index, [body, type]] of parcels.entries()) {
    try {
      const stored = await send(body, type, (part) => (index + part) / parcels.length);
      images += stored.images;
      skipped.push(...Object.entries(stored.skipped).map(([kind, count]) => `${count} ${kind}`));
    } catch (error) {
      failures.push(error.message);
    }
  }
  at("sent").hidden = true;
  await listStudies();
  if (!images) throw new Error(failures[0]);
  const left = [...skipped, ...failures];
  say(`${images} images stored.` + (left.length ? ` Left out: ${left.join("; ")}.` : ""));
});

at("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
at("drop").addEventListener("dragleave", () => at("drop").classList.remove("over"));
at("drop").addEventListener("drop", async (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const files = (await Promise.all(entries.map(filesOf))).flat();
  upload(files.length ? files : [...event.dataTransfer.files]);
});
for (const id of ["folder", "files"]) at(id).addEventListener("change", (event) => upload([...event.target.files]));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());

// Studies --------------------------------------------------------------------------------------------------------

const dated = (text) => (/^\d{8}$/.test(text) ? `${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6)}` : text);
const named = (study) => [dated(study.date) || "no date", study.description || "CT study"].join(" · ");

const listStudies = told(async () => {
  const studies = await ask("/api/studies");
  at("studies").replaceChildren(
    ...studies.map((study) => {
      const images = study.series.filter((one) => one.modality === "CT").reduce((sum, one) => sum + one.images, 0);
      const button = make("button", `${named(study)} · ${images} images`, { onclick: () => openStudy(study.study) });
      button.setAttribute("aria-current", study.study === state.study);
      const item = make("li");
      item.append(button);
      return item;
    }),
  );
  if (!studies.length) at("studies").append(make("li", "None yet.", { className: "quiet" }));
});

const openStudy = told(async (uid) => {
  const changed = state.study !== uid;
  const study = await ask(`/api/studies/${uid}`);
  Object.assign(state, { study: uid });
  at("study").hidden = false;
  at("title").textContent = named(study);
  const patient = [study.patient, study.patient_id].filter(Boolean).join(" · ");
  const renamed = study.renamed ? ` ${study.renamed} images had illegal UIDs and were given derived ones.` : "";
  at("patient").textContent = patient + renamed;
  const series = study.series.filter((one) => one.modality === "CT");
  at("series").replaceChildren(...series.map(showSeries));
  if (changed) {
    state.series = null;
    at("lesions").hidden = true;
    await listStudies();
  }
  const shown = series.find((one) => one.series === state.series) || series.find((one) => one.job?.state === "done") || series[0];
  if (shown.series !== state.series) look(study, shown);
  if (shown.job?.state === "done" && at("lesions").hidden) await showFindings(study, shown);
  clearTimeout(state.poll);
  if (series.some((one) => ["queued", "running"].includes(one.job?.state))) {
    state.poll = setTimeout(() => state.study === uid && openStudy(uid), 700);
  }
});

function showSeries(one) {
  const card = make("div", "", { className: "card" });
  card.append(make("p", `${one.description || "CT series"} · ${one.images} images`));
  const job = one.job;
  const busy = job && ["queued", "running"].includes(job.state);
  const row = make("div", "", { className: "row" });
  if (busy) {
    const left = job.seconds_left === null ? "" : `, about ${job.seconds_left} s left`;
    const words = job.state === "queued" ? "waiting" : job.total ? `slice ${job.done} of ${job.total}${left}` : "reading";
    card.append(make("p", `Recognition: ${words}`, { className: "quiet" }));
    const bar = make("progress", "", { max: job.total || 1, ariaLabel: "Recognition" });
    if (job.total) bar.value = job.done;
    row.append(make("button", "Cancel", { onclick: told(async () => ask(`/api/jobs/${job.id}/cancel`, { method: "POST" })) }));
    card.append(bar, row);
    return card;
  }
  if (job?.state === "failed") card.append(make("p", job.error, { className: "bad" }));
  if (job?.state !== "done") {
    const start = told(async () => {
      await ask(`/api/series/${one.series}/recognise`, { method: "POST" });
      state.series = one.series;
      at("lesions").hidden = true;
      await openStudy(state.study);
    });
    row.append(make("button", "Recognise", { className: "main", onclick: start }));
    card.append(row);
  }
  return card;
}

// The viewer -----------------------------------------------------------------------------------------------------

function look(study, series) {
  state.series = series.series;
  at("empty").hidden = true;
  if (!state.viewer) return;
  const overlay = study.series.find((one) => one.modality === "SEG" && one.of === series.series);
  const query = new URLSearchParams({ StudyInstanceUIDs: state.study });
  if (overlay) query.set("initialSeriesInstanceUID", overlay.series);
  localStorage.setItem("shownTours", '["basicViewerTour"]');
  at("viewer").hidden = false;
  at("viewer").src = `/viewer?${query}`;
  if (overlay) addOverlays(query.toString());
}

// OHIF opens with one segmentation; once it is drawn, those of the other categories are laid over the same images.
async function addOverlays(query) {
  for (let tries = 0; tries < 240 && at("viewer").src.endsWith(query); tries++) {
    await new Promise((done) => setTimeout(done, 500));
    const services = at("viewer").contentWindow.services;
    const viewport = services?.viewportGridService?.getActiveViewportId?.();
    const shown = (viewport && services.segmentationService.getSegmentationRepresentations(viewport)) || [];
    if (!shown.length) continue;
    const ids = shown.map((one) => one.segmentationId);
    for (const set of services.displaySetService.getActiveDisplaySets()) {
      if (set.Modality !== "SEG" || ids.includes(set.displaySetInstanceUID)) continue;
      const named = { segmentationId: set.displaySetInstanceUID, type: "Labelmap" };
      await set.load({ headers: {} });
      await services.segmentationService.createSegmentationForSEGDisplaySet(set, named);
      await services.segmentationService.addSegmentationRepresentation(viewport, named);
    }
    return;
  }
}

async function showOverlays(series) {
  const names = await ask(`/api/series/${series}/overlays`);
  at("slices").replaceChildren(
    ...names.map((name) => make("img", "", { src: `/api/series/${series}/overlays/${name}`, alt: name, id: name, loading: "lazy" })),
  );
  at("slices").hidden = false;
}

function jump(lesion) {
  if (!state.viewer) {
    const image = [...at("slices").children].find((one) => one.id.includes(String(lesion.key_slice_index).padStart(4, "0")));
    image?.scrollIntoView({ block: "center" });
    return;
  }
  const key = lesion.slices.find((one) => one.slice_index === lesion.key_slice_index);
  const shown = at("viewer").contentWindow;
  const services = shown.services;
  const id = services?.viewportGridService?.getActiveViewportId();
  const viewport = id && services.cornerstoneViewportService.getCornerstoneViewport(id);
  const ids = viewport?.getImageIds?.() || [];
  const index = ids.findIndex((one) => one.includes(key.sop_instance_uid));
  if (index >= 0) shown.cornerstone.utilities.jumpToSlice(viewport.element, { imageIndex: index });
}

// Lesions --------------------------------------------------------------------------------------------------------

const COLUMNS = [
  ["number", "#", (one) => one.number],
  ["category", "Category", (one) => one.category.replaceAll("_", " ")],
  ["score", "Score", (one) => one.score.toFixed(2)],
  ["volume_ml", "ml", (one) => one.volume_ml.toFixed(2)],
  ["mean_hu", "Mean HU", (one) => Math.round(one.mean_hu)],
  ["side", "Side", (one) => one.side || ""],
  ["key_slice_index", "Slice", (one) => one.key_slice_index],
];

const showFindings = told(async (study, series) => {
  state.findings = await ask(`/api/series/${series.series}/findings`);
  at("lesions").hidden = false;
  at("summary").textContent = state.findings.summary;
  drawTable();
  const files = await ask(`/api/series/${series.series}/files`);
  const about = await ask("/api/about");
  at("downloads").replaceChildren(
    ...files.map((file) => make("a", file.name, {
      href: `/api/series/${series.series}/files/${file.name}`,
      target: file.name.endsWith(".html") ? "_blank" : "",
      download: file.name.endsWith(".html") ? "" : file.name,
    })),
  );
  at("downloads").querySelectorAll("a").forEach((link) => link.target && link.removeAttribute("download"));
  if (about.archive) {
    const out = told(async () => say(`${(await ask(`/api/series/${series.series}/send`, { method: "POST" })).sent} objects sent to the archive.`));
    at("downloads").append(make("button", "Send to archive", { onclick: out }));
  }
  look(study, series);
  if (!state.viewer) await showOverlays(series.series);
});

function drawTable() {
  const [by, sign] = state.order;
  at("head").replaceChildren(
    ...COLUMNS.map(([name, title]) => {
      const cell = make("th", "", { scope: "col" });
      const turn = () => ((state.order = [name, name === by ? -sign : 1]), drawTable());
      cell.append(make("button", title, { onclick: turn }));
      if (name === by) cell.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      return cell;
    }),
  );
  const lesions = [...state.findings.lesions].sort((a, b) => sign * (a[by] > b[by] ? 1 : a[by] < b[by] ? -1 : 0));
  at("body").replaceChildren(
    ...lesions.map((lesion) => {
      const row = make("tr", "", { tabIndex: 0 });
      row.dataset.lesion = lesion.number;
      row.append(...COLUMNS.map(([, , show]) => make("td", show(lesion))));
      const choose = () => {
        at("body").querySelectorAll("tr").forEach((one) => one.setAttribute("aria-selected", one === row));
        jump(lesion);
      };
      row.onclick = choose;
      row.onkeydown = (event) => ["Enter", " "].includes(event.key) && (event.preventDefault(), choose());
      return row;
    }),
  );
}

// Archive --------------------------------------------------------------------------------------------------------

const search = told(async () => {
  const found = await ask(`/api/archive/studies?text=${encodeURIComponent(at("query").value.trim())}`);
  at("found").replaceChildren(
    ...found.map((one) => {
      const fetchIt = told(async () => {
        say("Fetching from the archive …");
        const stored = await ask(`/api/archive/studies/${one.study}/fetch`, { method: "POST" });
        say(`${stored.images} images fetched.`);
        await openStudy(one.study);
      });
      const item = make("li");
      item.append(make("button", `${named(one)} · ${one.series} series`, { onclick: fetchIt }));
      return item;
    }),
  );
  if (!found.length) at("found").append(make("li", "Nothing found.", { className: "quiet" }));
});
at("search").addEventListener("submit", (event) => (event.preventDefault(), search()));

const about = await ask("/api/about");
state.viewer = about.viewer;
at("archive").hidden = !about.archive;
await listStudies();
