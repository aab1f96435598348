// Reports how a browser took the widgets of this page apart, and how they look. Posted as soon as the pictures are there.
const luminance = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const colour = text => text.match(/[\d.]+/g).map(Number);
const ground = node => {
  for (; node; node = node.parentElement) {
    const found = colour(getComputedStyle(node).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
const contrast = node => {
  const [a, b] = [colour(getComputedStyle(node).color), ground(node)].map(luminance);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const shown = node => node.offsetParent !== null && [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim());
const attributes = node => Object.fromEntries([...node.attributes].map(a => [a.name, a.value]));
const look = place => {
  const nodes = [...place.querySelectorAll("*")].filter(node => node.localName !== "style" && !node.closest("cwdb-action"));
  const edge = place.getBoundingClientRect().right + 1;
  const described = node => [node.localName, node.className, node.textContent.slice(0, 40)];
  return {
    text: place.innerText,
    dim: nodes.filter(node => shown(node) && contrast(node) < 4.5).map(described),
    wide: nodes.filter(node => node.offsetParent && node.getBoundingClientRect().right > edge).map(described),
    pictures: [...place.querySelectorAll("img")].map(img => img.complete && img.naturalWidth > 0),
  };
};
(async () => {
  const places = [...document.querySelectorAll(".place")];
  const elements = places.map(place => [...place.querySelectorAll("*")].map(node => [node.localName, attributes(node)]));
  for (const picture of document.images) picture.loading = "eager"; // those far down would wait for somebody who scrolls
  await Promise.all([...document.images].map(picture => picture.decode().catch(() => {})));
  const report = places.map((place, at) => ({elements: elements[at], ...look(place)}));
  const request = new XMLHttpRequest();
  request.open("POST", "/report", false);
  request.send(JSON.stringify({places: report, hacked: window.hacked === true, scripts: document.scripts.length}));
})();
