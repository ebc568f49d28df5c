// The page of live.html: state → face → networks → words, bars and maps. Pixels are bytes, maps are 7×7.

const about = JSON.parse(document.getElementById("about").textContent);
const find = (id) => document.getElementById(id);
const state = { source: "drawn", person: 0, kept: null, face: null, boxes: [], box: 0, picture: null, stream: null };
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
const EYES = [0.2, 0.27, 0.6, 0.2], MOUTH = [0.28, 0.6, 0.44, 0.22]; // x, y, width, height as shares of the side
// The square that the networks learned from, against the box of jsfeat: its side, and how far it lies to the right and
// below, in shares of the side of the box. Medians over 34 photographs of the London set.
const BOX = { side: 1.29, right: 0.06, below: 0.02 };
const LARGEST = { bytes: 40e6, pixels: 60e6, side: 1600 };

async function unpack(name) {
  const text = document.querySelector(`script[data-name="${name}"]`).textContent;
  const packed = await fetch(`data:application/octet-stream;base64,${text}`); // faster than atob
  return new Uint8Array(await new Response(packed.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

const asText = (bytes) => new TextDecoder().decode(bytes);

function say(text, wrong = false) {
  find("said").textContent = text;
  find("said").classList.toggle("wrong", wrong);
}

function square(side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  return canvas;
}

const pen = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

// ---- the drawn face

const sheets = [];

async function loadSheets() {
  for (const name of about.people) {
    const image = await createImageBitmap(new Blob([await unpack(name)], { type: "image/webp" }));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    pen(canvas).drawImage(image, 0, 0);
    sheets.push(pen(canvas));
  }
}

function sprite(person, name) {
  const place = about.sprites.indexOf(name), side = about.side;
  return sheets[person].getImageData((place % about.columns) * side, Math.floor(place / about.columns) * side, side, side);
}

function drawn() {
  const side = about.side, step = Number(find("step").value), base = sprite(state.person, "neutral");
  const chosen = find("expression").value ? [find("expression").value] : [find("upper").value, find("lower").value];
  const sum = Float32Array.from(base.data), half = find("side").value;
  for (const name of chosen.filter((one) => one && step)) {
    const moved = sprite(state.person, `${name} ${step}`).data;
    for (let i = 0; i < sum.length; i++) {
      const right = (i >> 2) % side < side / 2; // the own right side is on the left of the picture
      if (half === "both" || right === (half === "right")) sum[i] += moved[i] - base.data[i];
    }
  }
  base.data.set(sum.map((value) => Math.max(0, Math.min(255, Math.round(value)))));
  const still = square(side), face = square(side);
  pen(still).putImageData(base, 0, 0);
  const cover = { eyes: EYES, mouth: MOUTH }[find("cover").value];
  if (cover) {
    pen(still).fillStyle = "#5a7386";
    pen(still).fillRect(...cover.map((share) => share * side));
  }
  const to = pen(face);
  to.drawImage(still, 0, 0); // its edge fills the corners of a tilted face
  to.translate(side / 2, side / 2);
  to.rotate((Number(find("roll").value) * Math.PI) / 180);
  to.drawImage(still, -side / 2, -side / 2);
  return face;
}

// ---- photographs and the camera

function facesIn(picture, width, height) {
  const scale = Math.min(1, 320 / Math.max(width, height)), [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [w, h];
  pen(canvas).drawImage(picture, 0, 0, w, h);
  const grey = new jsfeat.matrix_t(w, h, jsfeat.U8_t | jsfeat.C1_t);
  jsfeat.imgproc.grayscale(pen(canvas).getImageData(0, 0, w, h).data, w, h, grey);
  const pyramid = jsfeat.bbf.build_pyramid(grey, 24, 24, 4);
  const found = jsfeat.bbf.group_rectangles(jsfeat.bbf.detect(pyramid, jsfeat.bbf.face_cascade), 1);
  return found
    .filter((box) => box.neighbors > 0 || box.confidence > 0)
    .sort((a, b) => b.width * b.confidence - a.width * a.confidence)
    .slice(0, 6)
    .map((box) => ({
      side: (box.width / scale) * BOX.side,
      x: (box.x + (0.5 + BOX.right) * box.width) / scale,
      y: (box.y + (0.5 + BOX.below) * box.height) / scale,
    }));
}

function cut(picture, width, height, box) {
  const side = Math.min(box.side * (1 + Number(find("room").value) / 100), width, height);
  const left = Math.max(0, Math.min(width - side, box.x - side / 2)), top = Math.max(0, Math.min(height - side, box.y - side / 2));
  const face = square(about.side);
  pen(face).imageSmoothingQuality = "high";
  pen(face).drawImage(picture, left, top, side, side, 0, 0, about.side, about.side);
  return face;
}

const middle = (width, height) => ({ side: Math.min(width, height), x: width / 2, y: height / 2 });

async function show(file) {
  choose("photo");
  const name = file.name || "the picture";
  if (file.size > LARGEST.bytes) return say(`${name} is too large: ${Math.round(file.size / 1e6)} MB, at most ${LARGEST.bytes / 1e6}.`, true);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return say(`${name} is no picture that this browser can read.`, true);
  }
  if (bitmap.width * bitmap.height > LARGEST.pixels) return say(`${name} is too large: ${bitmap.width} × ${bitmap.height} pixels.`, true);
  const scale = Math.min(1, LARGEST.side / Math.max(bitmap.width, bitmap.height));
  const picture = document.createElement("canvas");
  [picture.width, picture.height] = [Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale))];
  pen(picture).imageSmoothingQuality = "high";
  pen(picture).drawImage(bitmap, 0, 0, picture.width, picture.height);
  [state.picture, state.box] = [picture, 0];
  const found = facesIn(picture, picture.width, picture.height);
  state.boxes = found.length ? found : [middle(picture.width, picture.height)];
  state.note = found.length ? "" : `No face found in ${name}; this is its middle. `;
  const row = find("faces");
  row.replaceChildren();
  if (found.length > 1)
    state.boxes.forEach((box, i) => {
      const button = document.createElement("button");
      button.append(cut(picture, picture.width, picture.height, box));
      button.setAttribute("aria-label", `face ${i + 1}`);
      button.onclick = () => ((state.box = i), refresh());
      row.append(button);
    });
  return refresh();
}

const video = document.createElement("video");
video.muted = video.playsInline = true;

async function film() {
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: 640 } });
  } catch (error) {
    const none = error.name === "NotFoundError" || error.name === "OverconstrainedError";
    choose("drawn");
    return say(none ? "There is no camera." : "The camera was refused, or something else uses it.", true);
  }
  video.srcObject = state.stream;
  await video.play();
  let box = null, last = 0;
  while (state.source === "camera" && state.stream) {
    const now = performance.now(), [w, h] = [video.videoWidth, video.videoHeight];
    if (w && now - last > 400) {
      const found = facesIn(video, w, h);
      state.note = found.length ? "" : "No face found; this is the middle. ";
      [box, last] = [found[0] || middle(w, h), now];
    }
    if (box) {
      state.face = cut(video, w, h, box);
      await answer();
    }
    await new Promise(requestAnimationFrame);
  }
  return undefined;
}

function stopFilm() {
  if (state.stream) state.stream.getTracks().forEach((track) => track.stop());
  state.stream = null;
}

// ---- the networks

let ort;
const networks = [];

function bytesFor(face, side) {
  const small = square(side);
  pen(small).imageSmoothingQuality = "high";
  pen(small).drawImage(face, 0, 0, side, side);
  const rgba = pen(small).getImageData(0, 0, side, side).data, places = side * side, planes = new Uint8Array(3 * places);
  for (let i = 0; i < places; i++) for (let c = 0; c < 3; c++) planes[c * places + i] = rgba[4 * i + c];
  return planes;
}

function softmax(logits) {
  const most = Math.max(...logits), powers = Array.from(logits, (x) => Math.exp(x - most)), sum = powers.reduce((a, b) => a + b);
  return powers.map((x) => x / sum);
}

async function run(network, face) {
  const side = network.size, bytes = bytesFor(face, side);
  const outputs = await network.session.run({ images: new ort.Tensor("uint8", bytes, [1, 3, side, side]) });
  const name = network.session.outputNames.find((one) => one !== "logits" && one !== "places");
  return { bytes, logits: outputs.logits.data, chances: softmax(outputs.logits.data), map: name && meanMap(outputs[name]), places: outputs.places };
}

function meanMap(tensor) {
  const [, heads, h, w] = tensor.dims, mean = new Float32Array(h * w);
  for (let k = 0; k < heads; k++) for (let i = 0; i < h * w; i++) mean[i] += Math.max(0, tensor.data[k * h * w + i]) / heads;
  const low = Math.min(...mean), high = Math.max(...mean);
  return mean.map((value) => (high > low ? (value - low) / (high - low) : 0));
}

function heat(canvas, face, map) {
  const side = canvas.width, to = pen(canvas);
  to.imageSmoothingQuality = "high";
  to.drawImage(face, 0, 0, side, side);
  if (!map) return;
  const image = to.getImageData(0, 0, side, side), at = (p) => Math.max(0, Math.min(6, (p / side) * 7 - 0.5));
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) {
      const [u, v] = [at(x), at(y)], [i, j] = [Math.min(5, Math.floor(u)), Math.min(5, Math.floor(v))], [a, b] = [u - i, v - j];
      const top = map[7 * j + i] * (1 - a) + map[7 * j + i + 1] * a, below = map[7 * j + 7 + i] * (1 - a) + map[7 * j + 8 + i] * a;
      const value = top * (1 - b) + below * b, place = Math.min(3, Math.floor(value * 4)), rest = value * 4 - place, k = 4 * (y * side + x);
      for (let c = 0; c < 3; c++) {
        const colour = HEAT[place][c] * (1 - rest) + HEAT[place + 1][c] * rest;
        image.data[k + c] += (colour - image.data[k + c]) * (0.2 + 0.5 * value);
      }
    }
  to.putImageData(image, 0, 0);
}

let busy = false, again = false, shown = 0;

async function answer() {
  if (busy) return void (again = true);
  busy = true;
  do {
    again = false;
    const face = state.face, answers = [];
    for (const network of networks) answers.push(await run(network, face));
    state.answers = answers;
    networks.forEach((network, i) => fill(network, answers[i], face));
    const chosen = networks.findIndex((network) => network.name === find("overlay").value);
    heat(find("face"), face, chosen < 0 ? null : answers[chosen].map);
    const first = networks.map((network, i) => network.classes[answers[i].chances.indexOf(Math.max(...answers[i].chances))]);
    const words = new Set(first).size === 1 ? `All three say ${first[0]}.` : networks.map((network, i) => `${network.title}: ${first[i]}`).join(", ") + ".";
    if (state.source !== "camera" || shown % 10 === 0) say((state.note || "") + words);
    find("face").setAttribute("aria-label", `${state.source === "drawn" ? "a drawn face" : "a face"}. ${words}`);
    pair(answers);
    shown += 1;
  } while (again);
  busy = false;
}

function fill(network, result, face) {
  heat(network.canvas, face, result.map);
  const most = Math.max(...result.chances);
  result.chances.forEach((chance, i) => {
    const row = network.rows[i];
    row.classList.toggle("first", chance === most);
    row.querySelector(".bar").style.width = `${100 * chance}%`;
    row.lastElementChild.textContent = `${Math.round(100 * chance)} %`;
  });
  const name = network.classes[result.chances.indexOf(most)];
  network.canvas.setAttribute("aria-label", `the map of ${network.title}, which learned from ${network.learned}; it says ${name}`);
}

// ---- two faces

function pair(answers) {
  const now = answers.find((one) => one.places);
  find("pair").hidden = !state.kept;
  if (!state.kept || !now) return;
  const canvas = find("lines"), to = pen(canvas), side = 336, apart = canvas.width - side;
  to.clearRect(0, 0, canvas.width, canvas.height);
  to.drawImage(state.kept.face, 0, 0, side, side);
  to.drawImage(state.face, apart, 0, side, side);
  const centre = (place) => [((place % 7) + 0.5) * (side / 7), (Math.floor(place / 7) + 0.5) * (side / 7)];
  for (const [i, j, strength] of alike(state.kept.places, now.places, Number(find("grain").value), 8)) {
    const [x, y] = centre(i), [u, v] = centre(j);
    to.lineWidth = 1 + 4 * strength;
    to.strokeStyle = "#ffd23f";
    to.beginPath();
    to.moveTo(x, y);
    to.bezierCurveTo(x + 120, y - 30, u + apart - 120, v - 30, u + apart, v);
    to.stroke();
  }
}

// The table of distances less its means by row and column: what two places share beyond what each shares with all.
function alike(first, second, scale, count) {
  const [, , n, d] = first.dims, start = scale * n * d, table = [];
  for (let i = 0; i < n; i++) {
    table.push(new Float64Array(n));
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let k = 0; k < d; k++) sum += (first.data[start + i * d + k] - second.data[start + j * d + k]) ** 2;
      table[i][j] = -Math.sqrt(sum);
    }
  }
  const rows = table.map((row) => row.reduce((a, b) => a + b) / n);
  const columns = rows.map((_, j) => table.reduce((sum, row) => sum + row[j], 0) / n);
  const special = table.map((row, i) => row.map((value, j) => value - rows[i] - columns[j]));
  const all = special.flatMap((row) => [...row]), low = Math.min(...all), span = Math.max(...all) - low || 1;
  const order = all.map((_, k) => k).sort((a, b) => all[b] - all[a]), taken = [new Set(), new Set()], best = [];
  for (const k of order) {
    const [i, j] = [Math.floor(k / n), k % n];
    if (taken[0].has(i) || taken[1].has(j)) continue;
    taken[0].add(i);
    taken[1].add(j);
    best.push([i, j, (all[k] - low) / span]);
    if (best.length === count) break;
  }
  return best;
}

// ---- controls

function options(select, pairs) {
  for (const [value, text] of pairs) select.append(new Option(text, value));
}

function choose(source) {
  if (state.source === "camera" && source !== "camera") stopFilm();
  state.source = source;
  state.note = "";
  for (const button of find("sources").children) button.setAttribute("aria-pressed", button.dataset.source === source);
  for (const part of document.querySelectorAll("fieldset")) part.hidden = !part.dataset.for.split(" ").includes(source);
}

function refresh() {
  const alone = !find("expression").value;
  find("upper").disabled = find("lower").disabled = !alone;
  find("step").nextElementSibling.textContent = `${Math.round((100 * find("step").value) / about.steps)} %`;
  find("roll").nextElementSibling.textContent = `${find("roll").value}°`;
  find("room").nextElementSibling.textContent = `${find("room").value} %`;
  [...find("people").children].forEach((button, i) => button.setAttribute("aria-pressed", i === state.person));
  [...find("faces").children].forEach((button, i) => button.setAttribute("aria-pressed", i === state.box));
  const overlay = networks.find((network) => network.name === find("overlay").value);
  find("meaning").innerHTML = overlay ? `${overlay.title}'s own map: least <canvas id="scale" width="96" height="10"></canvas> most.` : "";
  if (overlay) heatScale(find("scale"));
  if (state.source === "drawn") (state.face = drawn()), writeLink();
  else if (state.source === "photo" && state.picture) state.face = cut(state.picture, state.picture.width, state.picture.height, state.boxes[state.box]);
  return answer();
}

function heatScale(canvas) {
  const to = pen(canvas), ramp = to.createLinearGradient(0, 0, canvas.width, 0);
  HEAT.forEach((colour, i) => ramp.addColorStop(i / 4, `rgb(${colour})`));
  to.fillStyle = ramp;
  to.fillRect(0, 0, canvas.width, canvas.height);
}

function reset() {
  for (const id of ["expression", "upper", "lower", "cover"]) find(id).value = "";
  find("lower").value = "AU12";
  find("side").value = "both";
  find("overlay").value = "";
  find("step").value = about.steps;
  find("roll").value = find("room").value = 0;
  Object.assign(state, { person: 0, kept: null, picture: null, boxes: [], box: 0 });
  find("faces").replaceChildren();
  find("file").value = "";
  choose("drawn");
  return refresh();
}

// ---- a link to a drawn face: its controls stand behind the # of the address

const LINKED = ["expression", "upper", "lower", "step", "side", "roll", "cover", "overlay"];

function writeLink() {
  const words = new URLSearchParams(LINKED.map((id) => [id, find(id).value]).filter(([, value]) => value));
  words.set("person", state.person + 1);
  history.replaceState(null, "", `#${words}`);
}

function readLink(link) {
  const words = new URLSearchParams(link.slice(1)), person = Number(words.get("person")) - 1;
  if (!words.size) return;
  if (about.people[person]) state.person = person;
  for (const id of LINKED) {
    const control = find(id), value = words.get(id) || "";
    if (control.options ? [...control.options].some((one) => one.value === value) : value) control.value = value;
  }
}

function controls() {
  const units = Object.entries(about.units).map(([name, words]) => [name, `${name} ${words}`]);
  const upper = units.filter(([name]) => about.upper.includes(Number(name.slice(2))));
  options(find("expression"), [["", "none: single muscles"], ...about.expressions.filter((one) => one !== "neutral").map((one) => [one, one])]);
  options(find("upper"), [["", "at rest"], ...upper]);
  options(find("lower"), [["", "at rest"], ...units.filter((one) => !upper.includes(one))]);
  find("step").max = about.steps;
  about.people.forEach((_, i) => {
    const button = document.createElement("button"), face = square(about.side);
    pen(face).putImageData(sprite(i, "neutral"), 0, 0);
    button.append(face);
    button.setAttribute("aria-label", `person ${i + 1}`);
    button.onclick = () => ((state.person = i), refresh());
    find("people").append(button);
  });
  for (const id of ["expression", "upper", "lower", "step", "side", "roll", "cover", "room", "overlay", "grain"]) find(id).oninput = refresh;
  for (const button of find("sources").children)
    button.onclick = () => {
      choose(button.dataset.source);
      if (button.dataset.source === "camera") return film();
      if (button.dataset.source === "photo" && !state.picture) return say("Choose a photograph.");
      return refresh();
    };
  find("file").onchange = () => find("file").files.length && show(find("file").files[0]);
  find("stop").onclick = () => (choose("drawn"), refresh());
  find("reset").onclick = reset;
  find("keep").onclick = () => {
    const places = state.answers && state.answers.find((one) => one.places);
    if (places) state.kept = { face: state.face, places: places.places };
    return refresh();
  };
  find("forget").onclick = () => ((state.kept = null), refresh());
  document.ondragover = (event) => event.preventDefault();
  document.ondrop = (event) => (event.preventDefault(), event.dataTransfer.files.length && show(event.dataTransfer.files[0]));
  document.onpaste = (event) => event.clipboardData.files.length && show(event.clipboardData.files[0]);
}

function cards() {
  for (const network of networks) {
    const card = document.createElement("section");
    card.className = "card";
    card.innerHTML = `<canvas width="168" height="168" role="img"></canvas><h2></h2><p class="soft"></p><table></table>`;
    card.querySelector("h2").textContent = network.title;
    card.querySelector("p").textContent = `learned from ${network.learned}`;
    network.canvas = card.querySelector("canvas");
    network.rows = network.classes.map((name) => {
      const row = card.querySelector("table").insertRow();
      row.innerHTML = `<th scope="row"></th><td><span class="bar"></span></td><td></td>`;
      row.firstElementChild.textContent = name;
      return row;
    });
    find("models").append(card);
  }
  options(find("overlay"), networks.map((network) => [network.name, `the map of ${network.title}, ${network.learned}`]));
}

async function start() {
  const from = performance.now(), link = location.hash; // `reset` writes its own
  const code = new Blob([await unpack("ort.wasm.bundle.min.mjs")], { type: "text/javascript" });
  ort = await import(URL.createObjectURL(code));
  ort.env.wasm.wasmBinary = (await unpack("ort-wasm-simd-threaded.wasm")).buffer;
  ort.env.wasm.numThreads = 1;
  await loadSheets();
  const began = about.models.map((network) => unpack(network.name));
  for (const [i, network] of about.models.entries())
    networks.push({ ...network, session: await ort.InferenceSession.create(await began[i]) });
  cards();
  controls();
  for (const name of ["jsfeat-min.js", "bbf_face.js"]) (0, eval)(asText(await unpack(name)));
  jsfeat.bbf.prepare_cascade(jsfeat.bbf.face_cascade);
  await reset();
  readLink(link);
  await refresh();
  window.onhashchange = () => (choose("drawn"), readLink(location.hash), refresh());
  find("count").textContent = `Ready after ${((performance.now() - from) / 1000).toFixed(1)} s.`;
  window.ferLab = { about, state, networks, refresh, show, facesIn, alike }; // what tests, and the curious, look into
}

start().catch((error) => say(`This browser cannot run the page: ${error.message}`, true));
