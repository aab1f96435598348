"use strict";

const wantsDark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", wantsDark.matches);
wantsDark.addEventListener("change", follow);
follow();

const viewer = document.getElementById("viewer");
SwaggerUIBundle({
  domNode: viewer,
  url: new URL(viewer.dataset.description, window.location.href).href,
  validatorUrl: null, // no foreign host
  persistAuthorization: false, // a key lives as long as the page
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelRendering: "model",
  defaultModelExpandDepth: 2,
  defaultModelsExpandDepth: 0,
});
