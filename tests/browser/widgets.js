// Reports how a browser took the widgets of this page apart, and how they look. Runs before the page counts as loaded.
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
const places = [...document.querySelectorAll(".place")];
const report = places.map(place => {
  const nodes = [...place.querySelectorAll("*")];
  const dim = nodes.filter(node => node.localName !== "style" && !node.closest("cwdb-action") && shown(node))
    .map(node => [contrast(node), node.localName, node.className, node.textContent.slice(0, 40)]).filter(([ratio]) => ratio < 4.5);
  const wide = nodes.filter(node => node.offsetParent && node.getBoundingClientRect().right > place.getBoundingClientRect().right + 1);
  return {
    elements: nodes.map(node => [node.localName, Object.fromEntries([...node.attributes].map(a => [a.name, a.value]))]),
    text: place.innerText,
    dim,
    wide: wide.map(node => [node.localName, node.className, node.textContent.slice(0, 40)]),
    pictures: [...place.querySelectorAll("img")].map(img => img.complete && img.naturalWidth > 0),
  };
});
const request = new XMLHttpRequest();
request.open("POST", "/report", false);
request.send(JSON.stringify({places: report, hacked: window.hacked === true, scripts: document.scripts.length}));
